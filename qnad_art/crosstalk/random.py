"""The control: as many weights as ``uniform``, chosen at random instead of by gradient."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qnad_art.crosstalk.criticality import FRACTION, Scope, select_critical
from qnad_art.crosstalk.uniform import Polarity, check_injection, signed_pairs
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.plan import CrosstalkPlan, placed_plan


@dataclass(frozen=True)
class Random:
    """A random ``fraction`` of the weights get ``pairs``; shows what the gradients are worth.

    Args:
        fraction, pairs, polarity, scope: as in :class:`~qnad_art.crosstalk.uniform.Uniform`.
        seed: of the choice.
    """

    fraction: float = FRACTION
    pairs: int = 1
    polarity: Polarity = "alternating"
    scope: Scope = "global"
    seed: int = 0

    name = "random"
    takes: ClassVar[frozenset[str]] = frozenset({"seed"})
    ranks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_injection(self.pairs, self.polarity)

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Plan for ``module``; ``x`` and ``y`` are not looked at."""
        generator = torch.Generator().manual_seed(self.seed)
        scores = {
            name: torch.rand(shape, generator=generator)
            for name, shape in module.weight_shapes.items()
        }
        return placed_plan(
            module.device_profile,
            module.placement,
            select_critical(scores, self.fraction, scope=self.scope),
            pairs=lambda served: signed_pairs(served, self.pairs, self.polarity),
            strategy=self.name,
            requested=self.fraction,
            scores=scores,
            settings=asdict(self),
        )
