"""When each product of a sum runs: time steps in which no physical qubit is used twice.

A sum whose products can run as they come, as many side by side as there are compute qubits, runs
so: that is the plain execution order. Any other is scheduled anew.

Under a crosstalk model in which neighbours disturb more than the product that they serve
(:attr:`~qnad_art.placement.placement.Placement.disturbed`), products that would disturb each other
are in different steps. A product without a word starts when the words of its step are over; it
meets what one of them leaves behind, which is a word of its own (:func:`settled`), and stays out of
steps in which two of them reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qnad_art.circuits.product import Site
from qnad_art.placement.placement import Placement

_ROWS = 256
"""Number of outputs scheduled together, which limits the memory."""


def time_steps(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Time step of every product of a layer, counted from 0 for each output.

    An injected product occupies its qubit, its neighbour and, with spectator injection, the
    neighbour's partner. Any other product occupies only its qubit. Where the plain execution order
    is not possible, injected products are placed first, each in the first step after the last use
    of its qubits. The others fill the gaps.

    Args:
        placement: defines the sites behind the indices.
        site, pairs: as in :class:`~qnad_art.placement.plan.LayerPlan`, in the weight's shape.

    Returns:
        int64, in the weight's shape.
    """
    return _in_parts(placement, site, pairs, _Schedule.steps).view(site.shape)


def steps_an_output(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Number of time steps of every output's sum, int64 (out,)."""
    return time_steps(placement, site, pairs).flatten(1).amax(1) + 1


def settled(placement: Placement, site: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Sites and pairs with the words that products without crosstalk meet in their time step."""
    if not any(placement.disturbed):
        return site, pairs
    both = _in_parts(placement, site, pairs, _Schedule.met)
    return (
        both[0].view(site.shape).to(site.dtype),
        both[1].view(site.shape).to(pairs.dtype),
    )


def _in_parts(
    placement: Placement, site: Tensor, pairs: Tensor, result: Callable[[_Schedule], Tensor]
) -> Tensor:
    """What ``result`` gives of the schedule of some rows at a time."""
    tables = _Tables.of(placement)
    rows = [part.flatten(1).cpu() for part in (site.long(), pairs.long())]
    parts = zip(*(part.split(_ROWS) for part in rows), strict=True)
    return torch.cat([result(_Schedule(tables, *part)) for part in parts], dim=-2)


@dataclass(frozen=True)
class _Tables:
    """What the sites of a placement occupy; filled up with ``last``, a qubit that is none.

    Args:
        occupied: (sites, n), physical qubits that nothing else may use in the step.
        reached: (sites, m), other qubits that the word disturbs.
        plain: (sites,), the site of the same qubit without any word.
        next_to: (last + 1, sites), the site of a product on a qubit next to the word of a site.
        injecting: bool (sites,), whether the site has a word of its own.
        compute: the qubits that run products, in order.
        last: see :attr:`~qnad_art.placement.placement.Placement.width`.
    """

    occupied: Tensor
    reached: Tensor
    plain: Tensor
    next_to: Tensor
    injecting: Tensor
    compute: Tensor
    last: int

    @classmethod
    def of(cls, placement: Placement) -> _Tables:
        sites = placement.sites
        last = placement.width
        own = [s.neighbour is not None and s.next_to is None for s in sites]
        number = {site: index for index, site in enumerate(sites)}
        reach = placement.disturbed or ((),) * len(sites)
        # What a pair on the product's own edge leaves behind depends on the product: keep out.
        alone = [own[i] and s.kind == "pairs" and s.partner is None for i, s in enumerate(sites)]
        occupied = [
            [*(s.qubits if own[i] else (s.qubit,)), *(reach[i] if alone[i] else ())]
            for i, s in enumerate(sites)
        ]
        reached = [list(reach[i]) if own[i] and not alone[i] else [] for i in range(len(sites))]
        next_to = torch.zeros(last + 1, len(sites), dtype=torch.int64)
        for index, site in enumerate(sites):
            for qubit in reached[index]:
                met = Site(qubit, site.neighbour, site.partner, site.kind, site.qubit)
                next_to[qubit, index] = number.get(met, 0)  # only compute qubits run products
        return cls(
            _padded(occupied, last),
            _padded(reached, last),
            torch.tensor([number[Site(s.qubit)] for s in sites]),
            next_to,
            torch.tensor(own),
            torch.tensor(placement.compute),
            last,
        )


class _Schedule:
    """Steps of some rows (outputs) of a layer; ``site`` and ``pairs`` are (rows, n)."""

    def __init__(self, tables: _Tables, site: Tensor, pairs: Tensor) -> None:
        self.tables, self.site, self.pairs = tables, site, pairs
        self.injected = (pairs != 0) & tables.injecting[site]
        in_turn = torch.arange(site.shape[1]) // len(tables.compute)
        self.plain = self._runs(in_turn)
        if self.plain.all():
            self.step = in_turn.expand_as(site)
        else:
            self.step = torch.where(self.plain, in_turn, self._injected_steps())

    def steps(self) -> Tensor:
        """Step of every product."""
        rest = ~(self.injected | self.plain)
        if not rest.any():
            return self.step
        qubit, rank, horizon = self._rest()
        blocked = self._marks(self.tables.occupied, self.step, horizon) > 0
        blocked |= self._marks(self.tables.reached, self.step, horizon) > 1
        # Of every qubit first its free steps, in order.
        free = torch.argsort(blocked.to(torch.uint8), dim=2, stable=True).flatten(1)
        found = free.gather(1, qubit * horizon + torch.where(rest, rank, 0))
        return torch.where(rest, found, self.step)

    def met(self) -> Tensor:
        """(2, rows, n): site and pairs, those of products without a word as they meet others'."""
        steps, tables = self.steps(), self.tables
        _, _, horizon = self._rest()
        word = torch.full((len(steps), (tables.last + 1) * horizon), -1)
        position = torch.arange(steps.shape[1]).expand_as(steps)
        for column in tables.reached[self.site].unbind(2):
            where = torch.where(self.injected, column, tables.last) * horizon
            word.scatter_(1, where + torch.where(self.injected, steps, 0), position)
        qubit = tables.occupied[self.site, 0]
        found = word.gather(1, torch.where(self.injected, tables.last, qubit) * horizon + steps)
        meets = ~self.injected & (found >= 0)
        source = found.clamp_min(0)
        site = tables.next_to[qubit, self.site.gather(1, source)]
        plain = torch.where(self.injected, self.site, tables.plain[self.site])
        own = torch.where(self.injected, self.pairs, 0)
        return torch.stack(
            [
                torch.where(meets, site, plain),
                torch.where(meets, self.pairs.gather(1, source), own),
            ]
        )

    def _rest(self) -> tuple[Tensor, Tensor, int]:
        """Qubit and rank on it of what is not injected, and a number of steps that suffices."""
        tables, rest = self.tables, ~self.injected
        qubit = torch.where(rest, tables.occupied[self.site, 0], tables.last)
        rank = _ranks(qubit)
        last = torch.where(self.injected, self.step + 1, 0).max()
        return qubit, rank, int(last + torch.where(rest, rank, 0).max()) + 1

    def _runs(self, step: Tensor) -> Tensor:
        """Whether the products of a row, one in turn on each compute qubit, run in ``step``.

        Bool (rows, 1).
        """
        tables, count = self.tables, self.site.shape[1]
        horizon = int(step[-1]) + 1 if count else 1
        qubit = tables.occupied[self.site, 0]
        in_turn = qubit == tables.compute.repeat(horizon)[:count]
        taken = self._marks(tables.occupied, step, horizon)
        reached = self._marks(tables.reached, step, horizon)
        other = torch.zeros_like(taken, dtype=torch.bool)
        rows = torch.arange(len(qubit))[:, None]
        other[rows, torch.where(self.injected, tables.last, qubit), step] = True
        other[:, tables.last] = False
        clash = (taken + other > 1) | (taken > 0) & (reached > 0) | other & (reached > 1)
        return in_turn.all(1, keepdim=True) & ~clash.flatten(1).any(1, keepdim=True)

    def _marks(self, table: Tensor, step: Tensor, horizon: int) -> Tensor:
        """How many injected products take each qubit in each step, (rows, qubits, horizon)."""
        last = self.tables.last
        marks = torch.zeros(len(self.site), (last + 1) * horizon, dtype=torch.int16)
        for column in table[self.site].unbind(2):
            # Products without injection count as uses of the placeholder qubit.
            taken = torch.where(self.injected, column, last) * horizon
            where = taken + torch.where(self.injected, step, 0)
            marks.scatter_add_(1, where, torch.ones_like(where, dtype=torch.int16))
        marks = marks.view(len(self.site), last + 1, horizon)
        marks[:, last] = 0
        return marks

    def _injected_steps(self) -> Tensor:
        """Steps of the injected products (0 for the others), one after another on shared qubits."""
        tables, site, injected = self.tables, self.site, self.injected
        size = (tables.occupied != tables.last).sum(1)
        order = torch.argsort(torch.where(injected, -size[site], 0), dim=1, stable=True)
        step = torch.zeros_like(site)
        # First step after the last in which a qubit was used, and in which it was disturbed.
        used, reached = torch.zeros(2, len(site), tables.last + 1, dtype=torch.int64)
        for weights in order[:, : int(injected.sum(1).max())].T:
            weights = weights[:, None]
            run = injected.gather(1, weights)
            chosen = site.gather(1, weights)[:, 0]
            takes, near = tables.occupied[chosen], tables.reached[chosen]
            before = [used.gather(1, takes), reached.gather(1, takes), used.gather(1, near)]
            now = torch.cat(before, dim=1).amax(1, keepdim=True)
            step.scatter_(1, weights, torch.where(run, now, step.gather(1, weights)))
            for last_use, where in ((used, takes), (reached, near)):
                # Two words may disturb one qubit in any order of steps: the last one counts.
                after = torch.where(run, now + 1, 0).expand_as(where)
                last_use.scatter_reduce_(1, where, after, "amax")
                last_use[:, tables.last] = 0
        return step


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _ranks(values: Tensor) -> Tensor:
    """Number of equal values before each entry of its row, (rows, n)."""
    ordered, order = values.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(1, order, torch.arange(values.shape[1]) - first)
