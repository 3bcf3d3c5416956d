"""The paper's strategy: the same number of pairs on each of the most critical weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from qnad_art.criticality import Scope, select_critical, weight_gradients
from qnad_art.crosstalk.plan import CrosstalkPlan, placed_plan
from qnad_art.errors import InvalidInputError
from qnad_art.module import QuantumExecutedModule


@dataclass(frozen=True)
class Uniform:
    """Algorithm 1 with one pair count for all: the top ``fraction`` by |∂L/∂w| get ``pairs``.

    Args:
        fraction: of the weights, in [0, 1].
        pairs: signed number of injected gate pairs (sign: neighbour in |0⟩ or |1⟩).
        scope: rank all weights together or layer by layer.
    """

    fraction: float = 0.3
    pairs: int = 1
    scope: Scope = "global"

    name = "uniform"

    def __post_init__(self) -> None:
        check_pairs(self.pairs)

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Plan for ``module`` from the gradients on inputs ``x`` (N, …) and labels ``y`` (N,)."""
        scores = weight_gradients(module, x, y)
        return placed_plan(
            module.device_profile,
            module.placement,
            select_critical(scores, self.fraction, scope=self.scope),
            pairs=self.pairs,
            strategy=self.name,
            requested=self.fraction,
            scores=scores,
            settings=asdict(self),
        )


def check_pairs(pairs: int) -> None:
    """Raise :class:`~qnad_art.errors.InvalidInputError` unless ``pairs`` is a non-zero integer."""
    if not isinstance(pairs, int) or isinstance(pairs, bool) or not 1 <= abs(pairs) <= 127:
        raise InvalidInputError(
            f"pairs is {pairs!r}; it must be a whole number from 1 to 127, or its negative "
            "(neighbour in |1⟩)."
        )
