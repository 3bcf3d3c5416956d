"""Any preprocessor or trainer of ART by its dotted name."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from art.defences.preprocessor.preprocessor import Preprocessor
from art.defences.trainer.trainer import Trainer
from art.estimators.classification import PyTorchClassifier
from pydantic import Field, JsonValue, model_validator

from qnad_art.benchmark.attacks import AttackSpec, stand_in
from qnad_art.benchmark.defences.adversarial_training import proxy_of
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import copy_of
from qnad_art.benchmark.defences.preprocessing import FROM_CLASSIFIER, made_for, preprocessed
from qnad_art.benchmark.defences.training import Training, one_hot
from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.training.budget import parse_budget

PREFIX = "art.defences."
_FAMILIES = {"art.defences.preprocessor": Preprocessor, "art.defences.trainer": Trainer}
_NOT_SETTINGS = {"self", "classifier", "proxy_classifier", "kwargs", "verbose", "attack", "attacks"}
_FIT_SETTINGS = ("nb_epochs", "batch_size")
_REFUSALS = (
    *(ValueError, TypeError, ImportError),
    *(AttributeError, NotImplementedError, AssertionError),
)


def class_names() -> list[str]:
    """Dotted names of ART's preprocessors and trainers, abstract classes left out."""
    return sorted(f"{family}.{name}" for family in _FAMILIES for name in _classes(family))


def build_by_class(name: str, settings: Mapping[str, Any]) -> Defence:
    """The step of a class inside ``art.defences``.

    Raises:
        UnknownNameError: there is no such preprocessor or trainer, or it has no such setting.
        InvalidInputError: ART refuses a value, or the class cannot serve as a defence here.
    """
    family, _, short = name.rpartition(".")
    if family not in _FAMILIES or short not in _classes(family):
        raise UnknownNameError("preprocessor or trainer of ART", name, class_names())
    kind = ArtPreprocessor if family == "art.defences.preprocessor" else ArtTrainer
    valid = kind.taken_by(_classes(family)[short])
    for setting in settings:
        if setting not in valid:
            raise UnknownNameError(f"setting of {name}:", setting, valid)
    return kind(name=name, settings=dict(settings))


def _classes(family: str) -> dict[str, Any]:
    base = _FAMILIES[family]
    return {
        name: value
        for name, value in vars(import_module(family)).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and not inspect.isabstract(value)
        and value is not base
        and value.__module__.startswith(PREFIX)
    }


class ByClass(Defence):
    """A class of ART with settings.

    Args:
        name: dotted name, such as ``art.defences.preprocessor.TotalVarMin``.
        settings: arguments of its constructor, and of a trainer's ``fit``.
    """

    name: str  # type: ignore[misc]
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """The settings themselves: a suite writes them next to the name."""
        content: dict[str, Any] = super().content()["settings"]
        return content

    @classmethod
    @abstractmethod
    def taken_by(cls, art_class: Any) -> list[str]:
        """Names of the settings that a class of ART takes."""

    @property
    def art_class(self) -> Any:
        """ART's class."""
        family, _, short = self.name.rpartition(".")
        return _classes(family)[short]

    def _refusal(self, error: Exception) -> InvalidInputError:
        listed = ", ".join(f"{name} is {value!r}" for name, value in self.settings.items())
        return InvalidInputError(f"{self.name}: {listed + '. ' if listed else ''}ART says: {error}")


class ArtPreprocessor(ByClass):
    """A preprocessor of ART; range and order of the channels come from the classifier."""

    @classmethod
    def taken_by(cls, art_class: Any) -> list[str]:
        """Names of the settings that a preprocessor takes."""
        given = {"self", "verbose", "apply_fit", "apply_predict", *FROM_CLASSIFIER}
        return sorted(set(inspect.signature(art_class.__init__).parameters) - given)

    @model_validator(mode="after")
    def _usable(self) -> ArtPreprocessor:
        if not self._make(stand_in()).apply_predict:
            raise InvalidInputError(
                f"{self.name} acts in training only, so it is not a defence by itself. Use "
                "'gaussian-augmentation', or a preprocessor that acts on predictions."
            )
        return self

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the preprocessor in its module."""
        return preprocessed(classifier, self._make(classifier), self.name, work)

    def _make(self, classifier: PyTorchClassifier) -> Preprocessor:
        try:
            return made_for(classifier, self.art_class, **self.settings)
        except _REFUSALS as error:
            raise self._refusal(error) from error


class ArtTrainer(ByClass, Training):
    """A trainer of ART, on a copy of the classifier with Adam.

    The settings are those of the constructor and of ``fit`` (``nb_epochs`` is 5 by default),
    ``learning_rate`` and, where the trainer takes attacks, ``attack``: a name, or a mapping with
    ``name``, ``eps`` and settings (default: PGD at 0.3).
    """

    @classmethod
    def taken_by(cls, art_class: Any) -> list[str]:
        """Names of the settings that a trainer takes."""
        made = set(inspect.signature(art_class.__init__).parameters)
        own = {"learning_rate"} | ({"attack"} if made & {"attack", "attacks"} else set())
        return sorted((made - _NOT_SETTINGS) | own | set(_FIT_SETTINGS))

    @model_validator(mode="before")
    @classmethod
    def _with_settings_of_training(cls, given: dict[str, Any]) -> dict[str, Any]:
        names = {field: field for field in Training.model_fields} | {"epochs": "nb_epochs"}
        asked = {field: given["settings"].get(name) for field, name in names.items()}
        return {**given, **{field: value for field, value in asked.items() if value is not None}}

    @model_validator(mode="after")
    def _usable(self) -> ArtTrainer:
        self._make(copy_of(stand_in()))
        return self

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer."""
        trainer = self._make(student)
        try:
            trainer.fit(data.x, one_hot(data), nb_epochs=self.epochs, batch_size=self.batch_size)
        except _REFUSALS as error:
            raise self._refusal(error) from error
        student.model.eval()

    def _make(self, student: PyTorchClassifier) -> Any:
        taken = inspect.signature(self.art_class.__init__).parameters
        settings: dict[str, Any] = {k: v for k, v in self.settings.items() if k in taken}
        for name in {"attack", "attacks"} & set(taken):
            settings[name] = self._attack(student)
        if "proxy_classifier" in taken:
            settings["proxy_classifier"] = proxy_of(student)
        try:
            return self.art_class(student, **settings)
        except _REFUSALS as error:
            raise self._refusal(error) from error

    def _attack(self, student: PyTorchClassifier) -> Any:
        asked: Any = self.settings.get("attack", "pgd")
        settings = dict(asked) if isinstance(asked, Mapping) else {"name": asked}
        eps = parse_budget(str(settings.pop("eps", 0.3)), "eps")
        spec = AttackSpec.parse(settings)
        return spec.make(student, eps if spec.budgeted else None, batch_size=128)
