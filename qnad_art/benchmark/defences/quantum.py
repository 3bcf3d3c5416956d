"""Quantum execution: with inherent noise, and under the crosstalk of any strategy (QNAD)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, model_validator

from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import EPOCHS, Count, Epsilon, Fraction, Positive, shuffled
from qnad_art.circuits.response import MAX_PAIRS, Readout
from qnad_art.crosstalk import build_strategy, strategy_settings, taken, traits
from qnad_art.crosstalk.criticality import FRACTION
from qnad_art.defence import CALIBRATION_IMAGES, QNAD
from qnad_art.errors import UnknownNameError
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.layers.kernels import Bias, Gain
from qnad_art.layers.mappings import DEFAULT_MAPPING
from qnad_art.network.settings import SETTINGS, Allocation, ExecutionSettings
from qnad_art.placement.placement import Order
from qnad_art.placement.plan import CrosstalkPlan
from qnad_art.plugins.discovery import load_plugin, provider
from qnad_art.training.adversarial import AdversarialSettings, untouched

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

_PLAN = "plan.safetensors"


class Inherent(Defence):
    """The network as circuits on the device, with its inherent noise only.

    Args:
        calibration_images: number of images that set the activation scales.

    The other settings are those of :class:`~qnad_art.network.settings.ExecutionSettings`; device
    and seed are the cell's.
    """

    name: ClassVar[str] = "inherent"
    quantum: ClassVar[bool] = True
    executes: ClassVar[bool] = True

    shots: Count | None = ExecutionSettings.shots
    allocation: Allocation = "margin"
    calibration_images: Count = CALIBRATION_IMAGES
    readout: Readout = ExecutionSettings.readout
    gain: Gain = ExecutionSettings.gain
    headroom: Positive = ExecutionSettings.headroom
    bias: Bias = "classical"
    mapping: str = DEFAULT_MAPPING
    percentile: Positive | None = ExecutionSettings.percentile
    include: tuple[str, ...] = tuple(ExecutionSettings.include)
    exclude: tuple[str, ...] = tuple(ExecutionSettings.exclude)
    order: Order = ExecutionSettings.order
    compute: tuple[int, ...] | None = None
    max_pairs: Count | None = ExecutionSettings.max_pairs
    echo: bool = ExecutionSettings.echo

    @model_validator(mode="after")
    def _executable(self) -> Inherent:
        self.settings()
        return self

    def settings(self, **work: Any) -> ExecutionSettings:
        """Settings of the execution; ``work`` adds device and seed, or replaces others."""
        own = {name: getattr(self, name) for name in SETTINGS if name in Inherent.model_fields}
        return ExecutionSettings(**{**own, **work})

    @property
    def by(self) -> str | None:
        """Distribution and version that provide the mapping."""
        return provider("mapping", self.mapping)

    def content(self) -> dict[str, Any]:
        """The settings, without defaults of which recorded results know nothing."""
        content = super().content()
        for name, before in (("mapping", DEFAULT_MAPPING), ("echo", False)):
            if content[name] == before:
                del content[name]
        return content

    def identity(self) -> dict[str, Any]:
        """See the base class; results of before are named by the only default that there was."""
        identity = super().identity()
        if self.max_pairs is None:
            identity["max_pairs"] = MAX_PAIRS
        elif self.max_pairs == MAX_PAIRS:
            identity["max_pairs"] = str(MAX_PAIRS)  # asked for: not what suits the device
        return identity

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """Whether there is shot noise; without shots the expectation is exact."""
        return self.shots is not None

    def apply(
        self, classifier: PyTorchClassifier, work: Work, folder: Path
    ) -> QuantumExecutedClassifier:
        """The classifier as circuits."""
        scales = shuffled(work).x[: self.calibration_images]
        settings = self.settings(device=work.device, seed=work.seed, allocation=None)
        hardened = QuantumExecutedClassifier.from_art(classifier, scales, settings=settings)
        if (plan := self._plan(folder)) is not None:
            hardened.plan = plan
        if self.shots is not None and self.allocation == "margin":
            hardened.allocate_shots(scales)
        return hardened

    def _plan(self, folder: Path) -> CrosstalkPlan | None:
        return None


class Qnad(Inherent):
    """Quantum execution under the crosstalk plan that a strategy makes from the training images.

    A suite may write ``qnad-tuned`` for ``qnad`` with ``strategy: tuned``, and so for every other
    strategy. Kundu et al., IEEE HOST 2024, doi 10.1109/HOST55342.2024.10545406.

    Args:
        strategy: name of the strategy; its own settings are given next to it.
        fraction: fraction of the weights to put under crosstalk.
        ranked_at: budget of the FGSM examples on which criticality is ranked (the paper ranks after
            the attack); ``None`` ranks on clean images. Only for strategies that rank weights on
            the images that they are given.

    The other settings are those of :class:`Inherent`; ``bias`` defaults to what the strategy
    prefers.
    """

    name: ClassVar[str] = "qnad"
    model_config = ConfigDict(extra="allow")  # the strategy's settings

    strategy: str = "uniform"
    fraction: Fraction = FRACTION
    ranked_at: Epsilon | None = None

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> Iterable[str]:
        """Settings of the execution, and those of the strategy that are not filled in here."""
        strategy = given.get("strategy", cls.model_fields["strategy"].default)
        own = set(strategy_settings(strategy)) - traits(strategy).takes
        return {*cls.model_fields, *own} - _useless(strategy)

    @model_validator(mode="before")
    @classmethod
    def _with_the_strategys(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Add all settings of the strategy, defaults included, because they name the results."""
        valid, fields = cls.settings_of(given), cls.model_fields
        for name, value in given.items():
            if name not in valid and value is not None:
                raise UnknownNameError("setting:", name, valid)
        strategy = given.get("strategy", fields["strategy"].default)
        own = {name: given[name] for name in given.keys() & fields.keys()}
        rest = {name: given[name] for name in given.keys() - fields.keys()}
        return {**traits(strategy).prefers, **own, **_completed(strategy, rest)}

    @property
    def by(self) -> str | None:
        """Distributions and versions that provide the strategy and the mapping."""
        return ", ".join(filter(None, (provider("strategy", self.strategy), super().by))) or None

    def content(self) -> dict[str, Any]:
        """The settings under the short name, by which recorded results are named."""
        left_out = {"strategy", *_useless(self.strategy)}
        kept = {name: v for name, v in super().content().items() if name not in left_out}
        return {"name": f"{self.name}-{self.strategy}", **kept}

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Make the crosstalk plan and write it."""
        data = shuffled(work)
        defence = QNAD(
            classifier,
            settings=self.settings(device=work.device, seed=work.seed),
            strategy=self.strategy,
            fraction=self.fraction,
            attack=None if self.ranked_at is None else self._fgsm,
            calibration_images=self.calibration_images,
            **taken(self.strategy, on_epoch=lambda epoch: work.say(str(epoch))),
            **(self.model_extra or {}),
        )
        defence.fit(data.x, data.y)
        plan = defence.plan
        work.say(f"crosstalk on {plan.achieved:.1%} of the weights, {plan.added_gates():,} gates")
        plan.save(folder / _PLAN)

    def _plan(self, folder: Path) -> CrosstalkPlan | None:
        return CrosstalkPlan.load(folder / _PLAN)

    def _fgsm(self, classifier: QuantumExecutedClassifier) -> EvasionAttack:
        from art.attacks.evasion import FastGradientMethod

        return FastGradientMethod(classifier, eps=self.ranked_at, batch_size=250)


def _useless(strategy: str) -> set[str]:
    """Settings that a strategy does not use."""
    return set() if traits(strategy).ranks else {"ranked_at"}


def _completed(strategy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a strategy and the defaults of those not given, checked, as JSON."""
    made: type = load_plugin("strategy", strategy)
    if not is_dataclass(made):
        build_strategy(strategy, **settings)  # which raises for values that it cannot use
        return dict(settings)
    if issubclass(made, AdversarialSettings):
        settings = {"epochs": EPOCHS, **settings}
    adapter = TypeAdapter[Any](made)
    checked = adapter.validate_python(settings)
    left_out = {*traits(strategy).takes, *Qnad.model_fields}
    left_out |= {f.name for f in fields(made) if untouched(f, getattr(checked, f.name))}
    content: dict[str, Any] = adapter.dump_python(checked, mode="json", exclude=left_out)
    return content
