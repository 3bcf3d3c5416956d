"""What the defences share: kinds of settings, copies of classifiers, weights in files."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Annotated, Any

from art.estimators.classification import PyTorchClassifier
from pydantic import Field
from torch import nn

from qnad_art.benchmark.defences.base import Work
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.training.adversarial import Epsilon as Epsilon
from qnad_art.validation import image_range

Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

EPOCHS = 5
"""Of whatever a suite trains or tunes, unless it says otherwise: it does so for every seed."""

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

_KIND = "defence-weights"


def copy_of(classifier: PyTorchClassifier) -> PyTorchClassifier:
    """A classifier with a module of its own, the rest as it is."""
    return with_module(classifier, copy.deepcopy(classifier.model))


def shuffled(work: Work) -> Dataset:
    """All training images in an order of the seed's, each beginning with all classes."""
    return work.training.take(len(work.training), work.seed)


def clip_range(classifier: PyTorchClassifier) -> tuple[float, float]:
    """Smallest and largest input value, (0, 1) if the classifier does not say."""
    low, high = image_range(classifier).get("clip", (0.0, 1.0))
    return low, high


def save_module(module: nn.Module, folder: Path) -> None:
    """Write the state of a module."""
    save_tensors(folder / "weights.safetensors", module.state_dict(), kind=_KIND, header={})


def load_module(module: nn.Module, folder: Path) -> None:
    """Give a module of the same architecture the state that :func:`save_module` wrote.

    Raises:
        ArtifactError: missing or damaged, or of another architecture.
    """
    path = folder / "weights.safetensors"
    tensors, _ = load_tensors(path, kind=_KIND)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(f"{path} is for another network: {error}.") from error


def wrap_layers(network: nn.Module, kinds: tuple[type[nn.Module], ...], wrap: Any) -> int:
    """Put ``wrap(layer, number)`` in the place of every layer of some kinds; how many there are."""
    found = [name for name, part in network.named_modules() if isinstance(part, kinds)]
    if "" in found:
        raise InvalidInputError(
            f"The network is a single {type(network).__name__}; put it into a module of its own."
        )
    for number, name in enumerate(found):
        parent, _, child = name.rpartition(".")
        place = network.get_submodule(parent)
        setattr(place, child, wrap(getattr(place, child), number))
    return len(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Context without the progress bars that ART's trainers always draw."""
    with redirect_stderr(io.StringIO()):
        yield
