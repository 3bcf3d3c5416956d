"""Quantum execution: inherent noise, and QNAD's three ways to inject crosstalk."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import (
    Count,
    Epsilon,
    Fraction,
    Positive,
    shuffled,
)
from qnad_art.circuits.response import MAX_PAIRS, Readout
from qnad_art.crosstalk.codebook import Words
from qnad_art.crosstalk.criticality import Scope
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.crosstalk.uniform import Polarity, check_injection
from qnad_art.defence import QNAD
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.layers.kernels import Bias, Gain
from qnad_art.placement.placement import Order
from qnad_art.placement.plan import CrosstalkPlan
from qnad_art.validation import image_range

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

_PLAN = "plan.safetensors"


class Inherent(Defence):
    """The network as circuits on the device, with its inherent noise only.

    Args:
        shots: a product; ``None`` for the exact expectation.
        allocation: of the shots, see :class:`~qnad_art.defence.QNAD`.
        calibration_images: that set the activation scales.
        readout, gain, headroom, bias, percentile, include, exclude, order, compute, max_pairs: as
            :func:`qnad_art.convert`.
    """

    name: ClassVar[str] = "inherent"
    quantum: ClassVar[bool] = True

    shots: Count | None = None
    allocation: Literal["margin", "equal"] = "margin"
    calibration_images: Count = 512
    readout: Readout = "twirled"
    gain: Gain = "calibrated"
    headroom: Positive = 1.0
    bias: Bias = "classical"
    percentile: Positive | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    order: Order = "stretched"
    compute: tuple[int, ...] | None = None
    max_pairs: Count = MAX_PAIRS

    @property
    def noisy(self) -> bool:
        """With shots only: the expectation is exact."""
        return self.shots is not None

    def apply(
        self, classifier: PyTorchClassifier, work: Work, folder: Path
    ) -> QuantumExecutedClassifier:
        """The classifier as circuits."""
        scales = shuffled(work).x[: self.calibration_images]
        hardened = QuantumExecutedClassifier.from_art(
            classifier,
            scales,
            device=work.device,
            shots=self.shots,
            seed=work.seed,
            **self._execution(),
        )
        if (plan := self._plan(folder)) is not None:
            hardened.plan = plan
        if self.shots is not None and self.allocation == "margin":
            hardened.allocate_shots(scales)
        return hardened

    def _plan(self, folder: Path) -> CrosstalkPlan | None:
        return None

    def _execution(self) -> dict[str, Any]:
        names = ("readout", "gain", "headroom", "bias", "percentile", "include", "exclude", "order")
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "compute": self.compute, "max_pairs": self.max_pairs}


class _Qnad(Inherent):
    """Quantum execution under a crosstalk plan that QNAD fits on the training images."""

    fraction: Fraction = 0.3

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Make the crosstalk plan and write it."""
        data = shuffled(work)
        defence = QNAD(
            classifier,
            work.device,
            shots=self.shots,
            strategy=self._strategy(classifier, work),
            attack=self._attack(),
            allocation=self.allocation,
            calibration_images=self.calibration_images,
            seed=work.seed,
            **self._execution(),
        )
        defence.fit(data.x, data.y)
        plan = defence.plan
        work.say(f"crosstalk on {plan.achieved:.1%} of the weights, {plan.added_gates():,} gates")
        plan.save(folder / _PLAN)

    def _plan(self, folder: Path) -> CrosstalkPlan | None:
        return CrosstalkPlan.load(folder / _PLAN)

    @abstractmethod
    def _strategy(self, classifier: PyTorchClassifier, work: Work) -> Any: ...

    def _attack(self) -> Any:
        return None


class QnadUniform(_Qnad):
    """The paper's crosstalk: the same number of gate pairs on each of the most critical weights.

    Args:
        fraction, pairs, polarity, scope: as :class:`~qnad_art.crosstalk.uniform.Uniform`.
        ranked_at: budget of the FGSM examples on which criticality is ranked (the paper ranks after
            the attack); ``None`` ranks on clean images.

    The others are those of :class:`Inherent`. Kundu et al., IEEE HOST 2024,
    doi 10.1109/HOST55342.2024.10545406.
    """

    name: ClassVar[str] = "qnad-uniform"

    pairs: int = 1
    polarity: Polarity = "alternating"
    scope: Scope = "global"
    ranked_at: Epsilon | None = None

    @model_validator(mode="after")
    def _injectable(self) -> QnadUniform:
        check_injection(self.pairs, self.polarity)
        return self

    def _strategy(self, classifier: PyTorchClassifier, work: Work) -> Any:
        from qnad_art.crosstalk.uniform import Uniform

        return Uniform(self.fraction, self.pairs, self.polarity, self.scope)

    def _attack(self) -> Any:
        if self.ranked_at is None:
            return None

        def fgsm(classifier: QuantumExecutedClassifier) -> EvasionAttack:
            from art.attacks.evasion import FastGradientMethod

            return FastGradientMethod(classifier, eps=self.ranked_at, batch_size=250)

        return fgsm


class QnadRandom(_Qnad):
    """The control of :class:`QnadUniform`: as many weights, chosen at random.

    Args:
        fraction, pairs, polarity, scope: as :class:`~qnad_art.crosstalk.random.Random`.

    The others are those of :class:`Inherent`.
    """

    name: ClassVar[str] = "qnad-random"

    pairs: int = 1
    polarity: Polarity = "alternating"
    scope: Scope = "global"

    @model_validator(mode="after")
    def _injectable(self) -> QnadRandom:
        check_injection(self.pairs, self.polarity)
        return self

    def _strategy(self, classifier: PyTorchClassifier, work: Work) -> Any:
        from qnad_art.crosstalk.random import Random

        return Random(self.fraction, self.pairs, self.polarity, self.scope, work.seed)


class QnadTuned(_Qnad):
    """Crosstalk tuned by gradients on adversarial examples, weights frozen.

    Args:
        fraction, codebook, ranked_on, refresh, scope, epsilon, attack_steps, robust_weight, epochs,
            batch_size, learning_rate, patience, validation_fraction, shot_noise, precision: as
            :class:`~qnad_art.crosstalk.tuned.Tuned`.

    The others are those of :class:`Inherent`.
    """

    name: ClassVar[str] = "qnad-tuned"

    bias: Bias = "quantum"
    codebook: Words = "all"
    ranked_on: Literal["adversarial", "clean"] = "adversarial"
    refresh: int = 0
    scope: Scope = "balanced"
    epsilon: Epsilon = 0.3
    attack_steps: int = 3
    robust_weight: float = 0.7
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.02
    patience: int | None = None
    validation_fraction: float = 0.1
    shot_noise: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _tunable(self) -> QnadTuned:
        Tuned(**self._settings())  # which raises for what it cannot use
        return self

    def _strategy(self, classifier: PyTorchClassifier, work: Work) -> Any:
        return Tuned(
            **self._settings(),
            **image_range(classifier),
            seed=work.seed,
            on_epoch=lambda epoch: work.say(str(epoch)),
        )

    def _settings(self) -> dict[str, Any]:
        own = set(type(self).model_fields) - set(Inherent.model_fields)
        return {**{name: getattr(self, name) for name in own}, "max_pairs": self.max_pairs}
