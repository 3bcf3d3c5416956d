"""Crosstalk on the largest weights: what the paper's ranking by gradients is worth beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from qnad_art.crosstalk.criticality import select_critical
from qnad_art.errors import InvalidInputError
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.plan import CrosstalkPlan, placed_plan


# The fields are the settings: QNAD(classifier, strategy="heaviest", pairs=2) sets them by name.
@dataclass(frozen=True)
class Heaviest:
    """The same number of gate pairs on the ``fraction`` of the weights that are largest.

    Args:
        fraction: of the weights of all layers together, in [0, 1]. Every strategy takes it.
        pairs: of gates on each, from 1; their sign alternates within the weights of an output, so
            that the shifts cancel on average.

    Raises:
        InvalidInputError: ``pairs`` is no number from 1 to 127.
    """

    fraction: float = 0.3
    pairs: int = 1

    name = "heaviest"  # the entry point's; plans say it

    # Wrong settings are refused at once, not after minutes of work. The message says the value,
    # what is valid, and what to do; errors of qnad_art.errors end a command with one line.
    def __post_init__(self) -> None:
        if type(self.pairs) is not int or not 1 <= self.pairs <= 127:
            raise InvalidInputError(
                f"pairs is {self.pairs!r}; it must be a whole number from 1 to 127, say 1."
            )

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Plan for ``module``; the images ``x`` (N, …) and labels ``y`` (N,) are not looked at.

        ``module`` is the network as it runs, as circuits of ``module.device_profile``; a strategy
        may ask it for gradients (:func:`~qnad_art.crosstalk.criticality.weight_gradients`) but
        leaves it as it is. Randomness, if any, comes from a setting ``seed``.
        """
        scores = {
            name: layer.weight.detach().abs().cpu().float() for name, layer in module.layers.items()
        }
        # Which weights: the largest scores, as bool tensors of the weights' shapes.
        critical = select_critical(scores, self.fraction)
        # Where: Algorithm 1 puts them on qubits and time steps with an idle neighbour. How many
        # pairs is asked for each layer, of the weights that found one.
        return placed_plan(
            module.device_profile,
            module.placement,
            critical,
            pairs=lambda served: self.pairs * _alternating(served),
            strategy=self.name,
            requested=self.fraction,
            scores=scores,
            settings=asdict(self),
        )


def _alternating(served: Tensor) -> Tensor:
    """+1 and -1 in turn over the served weights of every output."""
    rank = served.flatten(1).int().cumsum(1).view_as(served)
    return torch.where(rank % 2 == 1, 1, -1)
