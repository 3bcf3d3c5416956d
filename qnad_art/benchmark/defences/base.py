"""What a defence is to the benchmark: settings, an expensive ``fit`` and a cheap ``apply``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

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

    @property
    def noisy(self) -> bool:
        """Whether predictions vary from draw to draw; only the estimate of time asks."""
        return False

    def identity(self) -> dict[str, Any]:
        """All that the step's outcome depends on, as JSON: its settings, files by content."""
        return self.model_dump(mode="json")

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Train, tune or rank, and write what :meth:`apply` needs into the empty ``folder``."""

    @abstractmethod
    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The defended classifier, from what :meth:`fit` wrote; the same at every call."""
