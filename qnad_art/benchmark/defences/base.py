"""What a defence is to the benchmark: settings, an expensive ``fit`` and a cheap ``apply``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from qnad_art.plugins.discovery import provider

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.datasets.dataset import Dataset
    from qnad_art.device.profile import DeviceProfile


@dataclass(frozen=True)
class Work:
    """What a defence may use.

    Args:
        training: images and labels; the test images are never here.
        device: the quantum device of the cell.
        seed: of everything random in the defence.
        say: takes a line on progress.
    """

    training: Dataset
    device: DeviceProfile
    seed: int
    say: Callable[[str], object] = lambda line: None


class Defence(BaseModel, ABC):
    """A step that turns a classifier into a defended one; its fields are its settings.

    Steps compose: each gets what the one before it made. Neither method changes the classifier
    that it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    quantum: ClassVar[bool] = False
    """Whether the step uses ``work.device``; a defence without one is measured on one device."""
    executes: ClassVar[bool] = False
    """Whether it runs the network as circuits, which of the steps of a defence only one can."""

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> Iterable[str]:
        """Names of the settings that can be given, where some are ``given``."""
        return cls.model_fields

    @property
    def by(self) -> str | None:
        """Distribution and version that it comes from; ``None`` if from this package."""
        return provider("defence", self.name)

    @property
    def noisy(self) -> bool:
        """Whether predictions vary from draw to draw; only the estimate of time asks."""
        return False

    def content(self) -> dict[str, Any]:
        """Its settings as JSON, as a suite writes them beside the name."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """All that the step's outcome depends on, as JSON: its content, files by theirs."""
        return self.content()

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Train, tune or rank, and write what :meth:`apply` needs into the empty ``folder``."""

    @abstractmethod
    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The defended classifier, from what :meth:`fit` wrote; the same at every call."""
