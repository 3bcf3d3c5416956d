"""Foolbox's attacks that walk along the decision boundary, which compiles code (needs numba)."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import foolbox
from foolbox import attacks
from torch import Tensor

from qnad_art.benchmark.attacks.foreign import Network
from qnad_art.benchmark.threats.victim import frozen
from qnad_art.errors import DependencyError
from qnad_foolbox.attacks import FoolboxAttack, model_of


class BrendelBethgeLinf(FoolboxAttack):
    """Brendel & Bethge (2019), L∞: from a misclassified image along the boundary to the nearest.

    A walk along a boundary needs one: all passes of a batch see the same draw of the noise. Images
    for which no misclassified start is found are returned as they are.

    Raises:
        DependencyError: numba is not installed.
    """

    kind = attacks.LinfinityBrendelBethgeAttack
    steps: int = 1000
    lr: float = 0.001
    lr_decay: float = 0.5
    lr_num_decay: int = 20
    overshoot: float = 1.1
    momentum: float = 0.8

    def perturb(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """As the base."""
        made = x.clone()
        with frozen(self.estimator):
            model = model_of(network, x)
            left, starts = _starts(model, x, y)
            if len(left):
                wrong = foolbox.criteria.Misclassification(y[left])
                made[left] = self.attack().run(model, x[left], wrong, starting_points=starts)
        return made

    def _check_params(self) -> None:
        super()._check_params()
        if find_spec("numba") is None:
            raise DependencyError(
                "Foolbox's Brendel-Bethge attacks need numba: pip install "
                "'qnad-foolbox[brendel-bethge]'."
            )


class BrendelBethgeL2(BrendelBethgeLinf):
    """Brendel & Bethge, L2."""

    kind = attacks.L2BrendelBethgeAttack


def _starts(model: foolbox.PyTorchModel, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the images that have a misclassified start, and the starts."""
    search = attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some have none
        starts = search.run(model, x, foolbox.criteria.Misclassification(y))
    left = (y == y).nonzero().ravel()
    # A frozen draw depends on the size of the batch, which shrinks here.
    while len(left):
        wrong = model(starts[left]).argmax(-1) != y[left]
        if wrong.all():
            break
        left = left[wrong]
    return left, starts[left]
