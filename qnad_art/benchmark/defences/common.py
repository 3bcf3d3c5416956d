"""Parts that defences share: kinds of settings, copies of classifiers, ranges of inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated

from art.estimators.classification import PyTorchClassifier
from pydantic import Field
from torch import nn

from qnad_art.benchmark.defences.base import Work
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.benchmark.values import Count as Count
from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import InvalidInputError
from qnad_art.training.adversarial import Epsilon as Epsilon
from qnad_art.validation import image_range

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

EPOCHS = 5
"""Default number of epochs of a defence: a suite trains it again for every seed."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)


def copy_of(classifier: PyTorchClassifier) -> PyTorchClassifier:
    """A classifier with a copy of the module; everything else is shared."""
    return with_module(classifier, copy.deepcopy(classifier.model))


def shuffled(work: Work) -> Dataset:
    """All training images, in the order that ``work.seed`` draws."""
    return work.training.take(len(work.training), work.seed)


def clip_range(classifier: PyTorchClassifier) -> tuple[float, float]:
    """Smallest and largest input value, (0, 1) if the classifier does not say."""
    low, high = image_range(classifier).get("clip", (0.0, 1.0))
    return low, high


def wrap_layers(
    network: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    wrap: Callable[[nn.Module, int], nn.Module],
) -> int:
    """Replace every layer of ``kinds`` by ``wrap(layer, number)``; return how many there are."""
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
