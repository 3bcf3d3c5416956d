"""Attacks by name: ART's evasion attacks on image classifiers of PyTorch.

:mod:`~qnad_art.benchmark.attacks.catalogue` has all attacks that fit. It leaves out these attacks
of ART 1.20:

- other tasks: ``AdversarialTexturePyTorch``, ``FrameSaliencyAttack``,
  ``OverTheAirFlickeringPyTorch`` (video); ``CarliniWagnerASR``, ``ImperceptibleASR`` and its
  ``…PyTorch`` (speech); ``DPatch``, ``RobustDPatch``, ``OverloadPyTorch``, ``SNAL`` (detection);
  ``MalwareGDTensorFlow`` (programs); ``LowProFool`` (tables).
- other models: ``DecisionTreeAttack``, ``HighConfidenceLowUncertainty``, and every
  ``…TensorFlowV2``.
- patches and scenes, which do not perturb the whole image: ``AdversarialPatch`` and its
  ``…Numpy``, ``…PyTorch``, ``LaserAttack``, ``GRAPHITEBlackbox``, ``GRAPHITEWhiteboxPyTorch``.
- a guide or target that the caller must choose: ``FeatureAdversariesNumpy``, ``…PyTorch``,
  ``TargetedUniversalPerturbation``.
- ``ShadowAttack``: takes one image per call, and treats labels as targets.
- ``CompositeAdversarialAttackPyTorch``, ``BrendelBethgeAttack``: need kornia and numba, which ART
  does not install.
- ``GeoDA``: writes files into the working directory, and reads them back from there.
- ``Wasserstein``: its Sinkhorn iteration overflows on small images.
- ``ProjectedGradientDescentNumpy``, ``…PyTorch``: ``pgd`` chooses between them.
- ART's ``AutoAttack``: see :mod:`qnad_art.benchmark.attacks.ensemble`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue, model_validator

from qnad_art.benchmark.attacks.catalogue import DLR, AttackEntry, Kind, Norm
from qnad_art.benchmark.records import Record
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.plugins.discovery import load_plugin, plugin_names

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

_RESERVED = {"verbose", "summary_writer", "targeted", "mask", "loss", "loss_type", "adv_criterion"}
"""Parameters that the benchmark or the attack's name decides, or that JSON cannot express."""


def attack_names() -> list[str]:
    """Names of the attacks."""
    return plugin_names("attack")


def attack_entry(name: str) -> AttackEntry:
    """The entry of an attack in the catalogue.

    Raises:
        UnknownNameError: the attack does not exist.
        PluginError: the plugin with this name is broken.
    """
    entry: AttackEntry = load_plugin("attack", name)
    return entry


class AttackSpec(Record):
    """An attack by name, with settings.

    Args:
        name: one of :func:`attack_names`.
        settings: settings of ART's class by the names in its ``attack_params``, except for ε.

    Raises:
        UnknownNameError: (from :meth:`parse`) the attack or one of its settings does not exist.
        InvalidInputError: (from :meth:`parse`) ART refuses a value.
    """

    name: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def parse(cls, value: AttackSpec | str | Mapping[str, Any]) -> AttackSpec:
        """Read a name, or a mapping ``{"name": …}`` that also has settings."""
        if isinstance(value, AttackSpec):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise InvalidInputError(
                f"An attack is a name such as 'pgd', or a mapping with one such as "
                f"{{'name': 'pgd', 'max_iter': 40}}, not {value!r}."
            )
        settings = {name: setting for name, setting in value.items() if name != "name"}
        _check(value["name"], settings)  # here, so that pydantic does not wrap the error
        return cls(name=value["name"], settings=settings)

    @model_validator(mode="after")
    def _checked(self) -> AttackSpec:
        _check(self.name, self.settings)
        return self

    @property
    def kind(self) -> Kind:
        """``"gradient"``, or ``"query"`` for attacks that only ask for predictions."""
        return attack_entry(self.name).kind

    @property
    def budgeted(self) -> bool:
        """Whether it takes ε; other attacks look for the smallest perturbation."""
        return attack_entry(self.name).budget is not None

    @property
    def norm(self) -> Norm | None:
        """Norm that ε bounds or the attack minimises: ``"inf"``, ``"2"``, ``"1"`` or ``"0"``."""
        chosen = self.settings.get("norm", attack_entry(self.name).norm)
        return None if chosen is None else str(chosen).removesuffix(".0")  # type: ignore[return-value]

    @property
    def single_step(self) -> bool:
        """Whether it takes only one step."""
        return attack_entry(self.name).single_step

    def make(
        self, classifier: PyTorchClassifier, eps: float | None, *, batch_size: int
    ) -> EvasionAttack:
        """ART's attack on a classifier; its ``generate`` takes images and class indices.

        Args:
            classifier: classifier that returns logits.
            eps: budget in units of the input; ``None`` if and only if it is not ``budgeted``.
            batch_size: images per pass.

        Raises:
            InvalidInputError: ART refuses a setting, or ``eps`` is missing or does not apply.
        """
        entry = attack_entry(self.name)
        return make_attack(self.name, entry, self.settings, classifier, eps, batch_size)


def _check(name: str, settings: Mapping[str, Any]) -> None:
    """Raise unless the attack exists, has these settings, and ART takes their values."""
    entry = attack_entry(name)
    valid = _settings_of(entry)
    for setting in settings:
        if setting not in valid:
            raise UnknownNameError(f"setting of attack {name!r}:", setting, valid)
    budget = None if entry.budget is None else 0.1
    make_attack(name, entry, settings, stand_in(), budget, batch_size=1)


def _settings_of(entry: AttackEntry) -> list[str]:
    """Settings of an attack: those of its ``attack_params`` that its constructor takes."""
    attack = _load(entry.path)
    taken: set[str] = set()
    for part in attack.__mro__:
        if "__signature__" in vars(part):  # more specific than its constructor
            taken |= set(vars(part)["__signature__"].parameters)
            break
        if "__init__" in vars(part):
            parameters = inspect.signature(part.__init__).parameters
            taken |= set(parameters)
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                break  # it passes no arguments on to its base
    own = {"eps", "th"} if entry.budget is not None else set()
    return sorted(set(attack.attack_params) & taken - _RESERVED - own)


def make_attack(
    name: str,
    entry: AttackEntry,
    given: Mapping[str, Any],
    classifier: PyTorchClassifier,
    eps: float | None,
    batch_size: int,
) -> EvasionAttack:
    """Like :meth:`AttackSpec.make`, for an entry that need not be registered as ``name``."""
    if (eps is None) != (entry.budget is None):
        needs = "needs a budget ε" if eps is None else f"takes no budget, but ε is {eps}"
        raise InvalidInputError(f"Attack {name!r} {needs}.")
    attack = _load(entry.path)
    settings: dict[str, Any] = {**entry.settings, **given}
    if settings.get("loss_type") == DLR and classifier.nb_classes < 3:
        raise InvalidInputError(
            f"Attack {name!r} needs at least 3 classes, and the classifier has "
            f"{classifier.nb_classes}: take another, such as 'autopgd-ce'."
        )
    if entry.budget is not None and eps is not None:
        settings = {**entry.budget(float(eps), settings), **settings}  # ART wants Python's float
    if "verbose" in attack.attack_params:
        settings["verbose"] = False
    if "batch_size" in attack.attack_params:
        settings.setdefault("batch_size", batch_size)
    if entry.probabilities:
        from qnad_art.benchmark.attacks.adapters import Probabilities
        from qnad_art.benchmark.threats.victim import with_module

        classifier = with_module(classifier, Probabilities(classifier.model))
    try:
        made = attack(classifier, **settings)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidInputError(_refusal(name, given, error)) from error
    return _load(entry.adapter)(made) if entry.adapter else made


def _refusal(name: str, given: Mapping[str, Any], error: Exception) -> str:
    named = {setting: value for setting, value in given.items() if setting in str(error)} or given
    listed = ", ".join(f"{setting} is {value!r}" for setting, value in named.items())
    return f"Attack {name!r}: {listed + '. ' if listed else ''}ART says: {error}"


@cache
def stand_in() -> PyTorchClassifier:
    """A small classifier on which values of settings are tested."""
    from art.estimators.classification import PyTorchClassifier
    from torch import nn, random

    with random.fork_rng(devices=[]):  # the first use must not change the caller's draws
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    shape = (1, 8, 8)
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


__all__ = [
    "AttackEntry",
    "AttackSpec",
    "attack_entry",
    "attack_names",
    "make_attack",
    "stand_in",
]
