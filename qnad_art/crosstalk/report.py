"""What a crosstalk plan does, in numbers: pairs, gates, time steps and circuit time by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qnad_art.device.profile import DeviceProfile
from qnad_art.placement.placement import Placement
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan
from qnad_art.placement.time_steps import steps_an_output

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerCrosstalk:
    """One layer.

    Args:
        name: of the layer.
        weights, injected: number of all, and of those under crosstalk.
        pairs: number of weights by signed pair count.
        gates: two-qubit gates added, each weight counted once.
        seconds: circuit time added, likewise.
        steps, plain_steps: mean time steps of an output's sum, with and without crosstalk.
    """

    name: str
    weights: int
    injected: int
    pairs: dict[int, int]
    gates: int
    seconds: float
    steps: float
    plain_steps: float


@dataclass(frozen=True)
class PlanReport:
    """A plan layer by layer; prints as a table with rich."""

    device: str
    strategy: str
    requested: float
    layers: tuple[LayerCrosstalk, ...]
    unserved: int = 0
    """See :attr:`~qnad_art.placement.plan.CrosstalkPlan.unserved`."""

    @property
    def achieved(self) -> float:
        """Fraction of all weights under crosstalk."""
        return sum(r.injected for r in self.layers) / max(sum(r.weights for r in self.layers), 1)

    def __rich__(self) -> Table:
        """Table for rich."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        without = f" ({self.unserved:,} weights got none)" if self.unserved else ""
        table = Table(
            box=SIMPLE_HEAD,  # layers of millions of weights fit 80 columns
            padding=0,
            show_edge=False,
            title=f"Crosstalk ({self.strategy}) on {self.device}: {self.achieved:.1%} of the "
            f"weights, {self.requested:.1%} requested{without}",
            caption="1 to 5+: weights by pairs; gates and ms: each weight counted once; "
            "steps: over those without crosstalk",
        )
        table.add_column("layer", overflow="fold")
        headings = ("injected", "1 pair", "2", "3–4", "5+", "gates", "ms", "steps")
        for heading in headings:
            table.add_column(heading, justify="right", overflow="fold")
        for row in self.layers:
            time = 1e3 * row.seconds
            table.add_row(
                row.name,
                f"{row.injected / max(row.weights, 1):.1%}",
                *(f"{count:,}" for count in _binned(row.pairs)),
                f"{row.gates:,}",
                f"{time:.3g}" if time < 100 else f"{time:,.0f}",
                f"×{row.steps / row.plain_steps:.1f}",
            )
        return table


def plan_report(plan: CrosstalkPlan, placement: Placement, device: DeviceProfile) -> PlanReport:
    """Describe ``plan`` as it runs on ``device`` with ``placement`` (those of its module)."""
    plan.check_device(device)
    histogram = plan.histogram()
    rows = []
    for name, layer in plan.layers.items():
        alone = replace(plan, layers={name: layer})
        nothing = torch.zeros_like(layer.pairs)
        plain = placement.plain_sites(layer.site.shape)
        rows.append(
            LayerCrosstalk(
                name,
                layer.pairs.numel(),
                alone.injected,
                histogram[name],
                alone.added_gates(),
                alone.added_seconds(device),
                _mean_steps(placement, layer),
                _mean_steps(placement, LayerPlan(plain, nothing)),
            )
        )
    layers = tuple(rows)
    return PlanReport(device.name, plan.strategy, plan.requested, layers, plan.unserved)


def _mean_steps(placement: Placement, layer: LayerPlan) -> float:
    steps: Tensor = steps_an_output(placement, layer.site, layer.pairs)
    return float(steps.double().mean())


def _binned(pairs: dict[int, int]) -> list[int]:
    """Number of weights with 1, 2, 3 or 4, and 5 or more pairs of either sign."""
    bins = ((1, 1), (2, 2), (3, 4), (5, 127))
    return [
        sum(number for count, number in pairs.items() if low <= abs(count) <= high)
        for low, high in bins
    ]
