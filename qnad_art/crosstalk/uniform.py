"""The same number of pairs on each of the most critical weights, whose signs alternate.

For the paper's Algorithm 1, see :mod:`qnad_art.crosstalk.paper`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from qnad_art.crosstalk.criticality import FRACTION, Scope, select_critical, weight_gradients
from qnad_art.errors import InvalidInputError
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.plan import CrosstalkPlan, placed_plan

Polarity = Literal["alternating", "fixed"]
POLARITIES: tuple[Polarity, ...] = ("alternating", "fixed")


@dataclass(frozen=True)
class Uniform:
    """The top ``fraction`` of the weights by |∂L/∂w| get ``pairs`` each.

    This is not the paper's Algorithm 1, which is :class:`~qnad_art.crosstalk.paper.Paper`. Here
    polarities alternate, and time steps are added until every critical weight has a neighbour.
    (With ``order="plain"`` none are added, but the qubit, not criticality, decides who gets one.)

    Args:
        fraction: of the weights, in [0, 1].
        pairs: number of injected gate pairs; a negative one turns every polarity.
        polarity: state of the neighbour, which sets the direction in which the phase turns.
            ``"alternating"``: |0⟩ and |1⟩ in turn within each sum, so that the shifts cancel on
            average. ``"fixed"``: |0⟩ for all; they add up, which few networks survive.
        scope: rank all weights together or layer by layer.
    """

    fraction: float = FRACTION
    pairs: int = 1
    polarity: Polarity = "alternating"
    scope: Scope = "global"

    name = "uniform"

    def __post_init__(self) -> None:
        check_injection(self.pairs, self.polarity)

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Plan for ``module`` from the gradients on inputs ``x`` (N, …) and labels ``y`` (N,)."""
        gradients = {name: g.cpu() for name, g in weight_gradients(module, x, y).items()}
        return placed_plan(
            module.device_profile,
            module.placement,
            select_critical(gradients, self.fraction, scope=self.scope),
            pairs=lambda served: signed_pairs(served, self.pairs, self.polarity),
            strategy=self.name,
            requested=self.fraction,
            scores=gradients,
            settings=asdict(self),
        )


def signed_pairs(served: Tensor, pairs: int, polarity: Polarity) -> Tensor:
    """``pairs`` for every weight, signed by ``polarity`` over the served weights of each output."""
    if polarity == "fixed":
        return torch.full(served.shape, pairs)
    rank = served.flatten(1).int().cumsum(1).view_as(served)
    return pairs * (1 - 2 * (rank % 2))


def check_injection(pairs: int, polarity: str) -> None:
    """Raise :class:`~qnad_art.errors.InvalidInputError` for what cannot be injected."""
    if not isinstance(pairs, int) or isinstance(pairs, bool) or not 1 <= abs(pairs) <= 127:
        raise InvalidInputError(
            f"pairs is {pairs!r}; it must be a whole number from 1 to 127, or its negative."
        )
    if polarity not in POLARITIES:
        raise InvalidInputError(f"polarity {polarity!r} is not one of {', '.join(POLARITIES)}.")
