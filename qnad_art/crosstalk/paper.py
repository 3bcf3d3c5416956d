"""Algorithm 1 of the paper, to the letter: execution order and criticality decide who is served.

Source: Kundu et al., IEEE HOST 2024, section III, doi 10.1109/HOST55342.2024.10545406.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from qnad_art.crosstalk.criticality import FRACTION, select_critical, weight_gradients
from qnad_art.errors import InvalidInputError
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.placement import Placement
from qnad_art.placement.plan import CrosstalkPlan, placed_plan

_STEPS = 1 << 17
"""Number of time steps that are served together, which limits the memory."""


@dataclass(frozen=True)
class Paper:
    """Algorithm 1: the same number of pairs, of one polarity, where a neighbour happens to be idle.

    1. The top ``fraction`` of all weights by |∂L/∂w| are critical.
    2. The plain execution order gives each its qubit and its time step, whatever the setting
       ``order`` says.
    3. In order of criticality, each looks for neighbours that are idle in its step and serve no
       other: first one hop, then two hops.
    4. Without a neighbour it gets no crosstalk (:attr:`~.placement.plan.CrosstalkPlan.unserved`
       counts these weights).
    5. With one it gets ``pairs``. No neighbour is flipped, and no step is added.

    Under a crosstalk model in time, where the neighbour disturbs more than its target, two further
    things hold. A neighbour is not available if its crosstalk would reach another target of the
    step, or would be the second to reach a product there. One hop is a wait of the neighbour in
    |1⟩, which costs two X gates on it, since a pair on the product's own edge turns nothing; two
    hops are a pair, whose control is in |1⟩ as well if its gates do not echo.

    Args:
        fraction: of the weights, in [0, 1].
        pairs: number of gate pairs (or waits) for each, 1 to 127.
    """

    fraction: float = FRACTION
    pairs: int = 1

    name = "paper"

    def __post_init__(self) -> None:
        if type(self.pairs) is not int or not 1 <= self.pairs <= 127:
            raise InvalidInputError(
                f"pairs is {self.pairs!r}; it must be a whole number from 1 to 127. (The strategy "
                "'uniform' also takes negative ones, whose polarity is the other.)"
            )

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Plan for ``module`` from the gradients on inputs ``x`` (N, …) and labels ``y`` (N,).

        The paper ranks after the attack, so its ``x`` are adversarial examples.
        """
        gradients = {name: g.cpu() for name, g in weight_gradients(module, x, y).items()}
        placement = module.placement
        return placed_plan(
            module.device_profile,
            _ByCriticality(placement.compute, placement.sites, "plain", placement.disturbed),
            select_critical(gradients, self.fraction),
            pairs=lambda served: torch.full(served.shape, self.pairs),
            strategy=self.name,
            requested=self.fraction,
            scores=gradients,
            settings=asdict(self),
        )


class _ByCriticality(Placement):
    """Lines 2 to 4: the plain order, and in every step the most critical weight chooses first."""

    def place(self, critical: Tensor, scores: Tensor | None = None) -> Tensor:
        """Site of every weight, see :meth:`~.placement.placement.Placement.place`."""
        width = len(self.compute)
        wanted = critical.flatten(1).cpu()
        rows, fan_in = wanted.shape
        steps = -(-fan_in // width)
        score = (wanted.float() if scores is None else scores.flatten(1)).cpu()
        key = torch.full((rows, steps * width), -torch.inf, dtype=score.dtype)
        key[:, :fan_in] = torch.where(wanted, score, key[:, :fan_in])
        key = key.view(-1, width)
        full = (torch.arange(steps * width) < fan_in).view(steps, width).repeat(rows, 1)
        served = torch.arange(width, dtype=torch.int16).repeat(len(key), 1)
        (asking,) = (key > -torch.inf).any(1).nonzero(as_tuple=True)
        for part in asking.split(_STEPS):
            found = self._serve_steps(key[part], full[part])
            served[part] = torch.where(found >= 0, found, served[part].long()).to(torch.int16)
        return served.view(rows, -1)[:, :fan_in].reshape(critical.shape)

    def _serve_steps(self, key: Tensor, full: Tensor) -> Tensor:
        """Injection sites by step and slot (-1 for none), both arguments being (steps, compute).

        Args:
            key: criticality, -∞ where no crosstalk is wanted.
            full: where a product runs.
        """
        helpers, near = self._helpers, self._near
        choices = _padded([self._choices(qubit) for qubit in self.compute], -1)
        found = torch.full(key.shape, -1)
        # The last column but one stands for no qubit, and the last for one that is never idle.
        running = torch.zeros(len(key), self._none + 2, dtype=torch.bool)
        running[:, self.compute] = full
        running[:, -1] = True
        busy, reached = running.clone(), torch.zeros_like(running)
        used = torch.zeros_like(running)  # by targets and by those that serve them
        order, count = key.argsort(dim=1, descending=True, stable=True), (key > -torch.inf).sum(1)
        for rank in range(len(self.compute)):
            (left,) = (count > rank).nonzero(as_tuple=True)
            for choice in choices.unbind(1):
                slot = order[left, rank]
                site, at = choice[slot], left[:, None]
                takes = helpers[site]
                own = torch.cat([self._qubits[slot][:, None], takes], 1)
                free = ~busy[at, takes].any(1)
                if self.disturbed:
                    around = near[site]
                    again = reached[at, around] & running[at, around]
                    free &= ~(reached[at, own].any(1) | (used[at, around] | again).any(1))
                now, at = left[free], at[free]
                found[now, slot[free]] = site[free]
                busy[at, takes[free]] = used[at, own[free]] = reached[at, near[site[free]]] = True
                busy[:, self._none] = used[:, self._none] = reached[:, self._none] = False
                left = left[~free]
        return found

    def _choices(self, qubit: int) -> list[int]:
        """Sites that serve a qubit, one hop before two."""
        sites = self.injections[self.compute.index(qubit)]
        if not self.disturbed:
            return list(sites)
        # In time, a pair on the product's own edge is calibrated, and turns nothing.
        one_hop = [i for i in sites if self.sites[i].kind == "wait"]
        return one_hop + [i for i in sites if self.sites[i].partner is not None]

    @cached_property
    def _none(self) -> int:
        """A number that is not a qubit's."""
        return self.width

    @cached_property
    def _qubits(self) -> Tensor:
        return torch.tensor(self.compute)

    @cached_property
    def _helpers(self) -> Tensor:
        """Qubits that each site needs idle; last, for no site, one that never is."""
        rows = [site.qubits[1:] for site in self.sites]
        return _padded([*rows, (self._none + 1,)], self._none)

    @cached_property
    def _near(self) -> Tensor:
        """Qubits that a site's crosstalk reaches besides its own."""
        reach = self.disturbed or ((),) * len(self.sites)
        return _padded([*reach, ()], self._none)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
