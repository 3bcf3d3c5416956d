"""The cost of a layer's circuits on a device: gates, runs and seconds.

A *circuit* is one time step of an output's sum. Its products run in parallel on the compute qubits,
as scheduled by :mod:`qnad_art.placement.time_steps` (zero padding is not executed). One shot takes
the duration of the longest product, of the longest readout and of the repetition delay, in which
the qubits relax to |0⟩.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import word_cost
from qnad_art.circuits.response import Readout
from qnad_art.device.profile import DeviceProfile
from qnad_art.placement.placement import Placement
from qnad_art.placement.plan import LayerPlan
from qnad_art.placement.time_steps import time_steps

SX_A_PRODUCT = 3

_ROWS = 256
"""Number of outputs counted together, which limits the memory."""


@dataclass(frozen=True)
class LayerResources:
    """The cost of one layer per image.

    Args:
        name: name of the layer.
        products: number of products of an activation and a weight.
        circuits: number of time steps, each of which runs up to ``Resources.side_by_side``
            products.
        runs: circuits times shots.
        one_qubit_gates: number of sx and x gates in the circuits (rz is virtual). The x of twirled
            readout occurs in every other shot and counts half (rounded).
        two_qubit_gates: number of two-qubit gates in the circuits, all of which are injected.
        seconds: duration of all runs, including repetition delays.
    """

    name: str
    products: int
    circuits: int
    runs: int
    one_qubit_gates: int
    two_qubit_gates: int
    seconds: float


@dataclass(frozen=True)
class Call:
    """The products that one call of a layer executes, (groups, J, positions), and how often."""

    executed: Tensor
    times: int


class CircuitCost:
    """Computes the cost of layers on one device.

    Args:
        device: the device that runs the circuits.
        placement: placement of the products.
        readout: ``"twirled"`` or ``"raw"``.
        delay: seconds between shots.
    """

    def __init__(
        self, device: DeviceProfile, placement: Placement, readout: Readout, delay: float
    ) -> None:
        self.placement = placement
        self.flips = 0.5 if readout == "twirled" else 0.0
        self.delay = delay
        sites = placement.sites
        qubits = [device.qubits[site.qubit] for site in sites]
        self.bare = _seconds(SX_A_PRODUCT * qubit.sx_duration for qubit in qubits)
        self.flip = _seconds(qubit.x_duration for qubit in qubits)
        self.readout = _seconds(qubit.readout_duration or 0.0 for qubit in qubits)
        model = crosstalk_model(device)
        costs = [word_cost(device, site) for site in sites]
        self.unit = _seconds(cost.unit_seconds for cost in costs)
        self.gates = torch.tensor([cost.unit_gates for cost in costs])
        self.edge = _seconds(cost.edge_seconds for cost in costs)
        self.flips_of = torch.tensor([cost.flips for cost in costs])
        self.own = torch.tensor([s.neighbour is not None and s.next_to is None for s in sites])
        # In time, the last part of a step has room for whole products: see circuits.words.
        self.before = SX_A_PRODUCT - 1 if model.timed else 0
        self.sx = _seconds(qubit.sx_duration for qubit in qubits)

    def layer(
        self, name: str, plan: LayerPlan, calls: Sequence[Call], shots: Tensor
    ) -> LayerResources:
        """Cost of one layer; ``shots`` (out,) are the shots per product of each output."""
        total = torch.zeros(6, dtype=torch.float64)
        site, pairs = plan.site.flatten(1).long(), plan.pairs.flatten(1).long()
        for call in calls:
            for group, rows in _blocks(len(site), len(call.executed)):
                alike = not pairs[rows].any() and bool((site[rows] == site[rows][:1]).all())
                for mask, positions in _distinct(call.executed[group]):
                    times = call.times * positions
                    if alike:  # one output represents all
                        first, times = slice(rows.start, rows.start + 1), times * len(site[rows])
                        cost = self._position(
                            site[first, mask], pairs[first, mask], shots[rows].mean()[None]
                        )
                    else:
                        cost = self._position(site[rows, mask], pairs[rows, mask], shots[rows])
                    total += times * cost
        products, circuits, runs, one_qubit, two_qubit, _ = map(round, total.tolist())
        return LayerResources(name, products, circuits, runs, one_qubit, two_qubit, float(total[5]))

    def _position(self, site: Tensor, pairs: Tensor, shots: Tensor) -> Tensor:
        """Cost of the outputs' sums at one position, with all products (outputs, J) executed.

        Returns:
            Products, circuits, runs, one-qubit gates, two-qubit gates, seconds.
        """
        if not pairs.numel():
            return torch.zeros(6, dtype=torch.float64)
        step = time_steps(self.placement, site, pairs)
        words = self.own[site] & (pairs != 0)
        negative = (pairs < 0).long()
        added = self.unit[site] * pairs.abs() + self.edge[site, negative]
        added += self.before * self.sx[site]
        circuit = self.bare[site] + torch.where(words, added, 0.0)
        ran = _longest(step, torch.ones_like(circuit))
        shot = (1 - self.flips) * _longest(step, circuit)
        shot += self.flips * _longest(step, circuit + self.flip[site])
        shot += _longest(step, self.readout[site]) + self.delay * ran
        one_qubit = torch.where(words, self.flips_of[site, negative], 0).sum()
        one_qubit = one_qubit + (SX_A_PRODUCT + self.flips) * pairs.numel()
        two_qubit = torch.where(words, self.gates[site] * pairs.abs(), 0).sum()
        figures = (ran.sum(), ran.sum(1) @ shots, one_qubit, two_qubit, shot.sum(1) @ shots)
        count = torch.tensor(pairs.numel())
        return torch.stack([figure.double() for figure in (count, *figures)])


def _longest(step: Tensor, seconds: Tensor) -> Tensor:
    """Largest value in each step, and 0 in steps that are empty: (outputs, steps)."""
    result = torch.zeros(len(step), int(step.max()) + 1, dtype=torch.float64)
    return result.scatter_reduce_(1, step, seconds, "amax")


def _blocks(outputs: int, groups: int) -> Iterator[tuple[int, slice]]:
    """The outputs of each group, in blocks of limited size."""
    size = outputs // groups
    for group in range(groups):
        for start in range(group * size, (group + 1) * size, _ROWS):
            yield group, slice(start, min(start + _ROWS, (group + 1) * size))


def _distinct(executed: Tensor) -> list[tuple[Tensor, int]]:
    """Distinct columns of (J, positions) and their counts; padding causes only a few."""
    masks, counts = torch.unique(executed.T, dim=0, return_counts=True)
    return list(zip(masks, counts.tolist(), strict=True))


def _seconds(values: Any) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
