"""The interface of a defence in the benchmark: settings, a slow ``fit`` and a fast ``apply``."""

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
    """Everything that a defence may use.

    Args:
        training: training images and labels; the test images are never here.
        device: the quantum device of the cell.
        seed: seed of everything random in the defence.
        say: function that takes a line on progress.
    """

    training: Dataset
    device: DeviceProfile
    seed: int
    say: Callable[[str], object] = lambda line: None


class Defence(BaseModel, ABC):
    """A step that turns a classifier into a defended one; its fields are its settings.

    Steps compose: each gets the result of the one before it. Neither method changes the classifier
    that it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    quantum: ClassVar[bool] = False
    """Whether the step uses ``work.device``; other defences are measured on one device only."""
    noisy: ClassVar[bool] = False
    """Whether predictions vary from draw to draw; used only to estimate how long a run takes."""
    executes: ClassVar[bool] = False
    """Whether the step runs the network as circuits; only one step of a defence can."""

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> Iterable[str]:
        """Names of the settings that can be given together with those in ``given``."""
        return cls.model_fields

    @property
    def by(self) -> str | None:
        """Distribution and version that provide the step; ``None`` for this package."""
        return provider("defence", self.name)

    def content(self) -> dict[str, Any]:
        """The settings as JSON, as a suite writes them next to the name."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """The content, with files named by their content: all that the outcome depends on."""
        return self.content()

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Train, tune or rank, and write what :meth:`apply` needs into the empty ``folder``."""

    @abstractmethod
    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The defended classifier, made from what :meth:`fit` wrote; every call gives the same."""
