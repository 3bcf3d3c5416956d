"""Accuracy of classifiers on clean images and under attack, with intervals."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.estimator import QuantumExecutedClassifier

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_PACKAGES = ("qnad-art", "adversarial-robustness-toolbox", "qiskit", "qiskit-aer", "torch")

PGD_STEPS = 40
"""Steps of the PGD that evaluates hardened classifiers."""


@dataclass(frozen=True)
class Proportion:
    """``correct`` of ``images`` images were classified correctly."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1]."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval."""
        from scipy.stats import binomtest

        found = binomtest(self.correct, self.images).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.accuracy:.1f} ± {50 * (high - low):.1f}"

    @classmethod
    def from_dict(cls, content: Any) -> Proportion:
        """The proportion that :meth:`as_dict` wrote."""
        return cls(round(content["accuracy"] * content["images"]), content["images"])

    def as_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return {"accuracy": self.accuracy, "wilson95": list(self.interval), "images": self.images}


def count_correct(classifier: PyTorchClassifier, x: Images, y: Labels) -> Proportion:
    """Count how many of ``x`` (N, …) get their class index ``y`` (N,), in one draw of the noise."""
    if len(x) == 0 or len(x) != len(y):
        raise InvalidInputError(f"{len(x)} images for {len(y)} labels; give as many, at least one.")
    return Proportion(int((classifier.predict(x).argmax(1) == y).sum()), len(y))


def pgd_examples(
    classifier: PyTorchClassifier,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    steps: int = PGD_STEPS,
    step: float | None = None,
    random_start: bool = False,
) -> Images:
    """Adversarial examples of one run of ART's PGD.

    Args:
        classifier: the classifier to attack.
        x, y: images (N, …) and class indices (N,).
        epsilon: L∞ budget in units of the input.
        steps: number of steps.
        step: step size; ``None`` means 2.5 ε / ``steps``.
        random_start: whether it starts somewhere within the budget, and not at the image.
    """
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        classifier,
        eps=epsilon,
        eps_step=2.5 * epsilon / steps if step is None else step,
        max_iter=steps,
        num_random_init=int(random_start),
        batch_size=250,
        verbose=False,
    )
    examples: Images = attack.generate(x, y)
    return examples


def count_robust(
    hardened: QuantumExecutedClassifier,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    steps: int = PGD_STEPS,
    restarts: int = 0,
) -> Proportion:
    """Count the images that hold against PGD on the network itself with both kinds of gradients.

    True gradients vanish where an activation saturates, so a second run passes them through (BPDA).
    Then come ``restarts`` runs with true gradients from random starts. Each run attacks what is
    left.
    """
    holds = np.ones(len(y), dtype=bool)
    for run in range(2 + restarts):
        through = hardened.module.unsaturated_gradients() if run == 1 else nullcontext()
        (left,) = holds.nonzero()
        if len(left) == 0:
            break
        with through:
            examples = pgd_examples(
                hardened, x[left], y[left], epsilon=epsilon, steps=steps, random_start=run > 1
            )
        holds[left] = hardened.predict(examples).argmax(1) == y[left]
    return Proportion(int(holds.sum()), len(y))


def compare(
    plain: PyTorchClassifier,
    hardened: QuantumExecutedClassifier,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    steps: int = PGD_STEPS,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> dict[str, dict[str, Proportion]]:
    """Accuracy of both classifiers on ``x`` (N, …) with class indices ``y`` (N,).

    Few ``steps`` flatter a defence: LeNet-5 under crosstalk has held against 10 steps twice as
    often as against 40 with restarts. ``on_stage`` is called with the name of each measurement that
    begins.

    Returns:
        For each measurement, the results of ``"plain"`` and ``"hardened"``. The measurements are
        ``"clean"``; ``"transfer"``: PGD examples made on the plain network; and ``"white-box"``:
        PGD on each network itself, in the hardened one through its noise, see
        :func:`count_robust`.
    """
    on_stage("clean")
    clean = {"plain": count_correct(plain, x, y), "hardened": count_correct(hardened, x, y)}
    on_stage("transfer")
    transferred = pgd_examples(plain, x, y, epsilon=epsilon, steps=steps)
    transfer = {
        "plain": count_correct(plain, transferred, y),
        "hardened": count_correct(hardened, transferred, y),
    }
    on_stage("white-box")
    robust = count_robust(hardened, x, y, epsilon=epsilon, steps=steps)
    white_box = {"plain": transfer["plain"], "hardened": robust}
    return {"clean": clean, "transfer": transfer, "white-box": white_box}


def package_versions() -> dict[str, str]:
    """Versions of Python, of the packages on which results depend, and of all plugins."""
    from qnad_art.plugins.discovery import find_plugins

    plugins = {plugin.distribution: plugin.version for plugin in find_plugins()}
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **plugins, **packages}
