"""The built-in networks, by name and architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn

from qnad_art.environment import import_torchvision
from qnad_art.errors import InvalidInputError
from qnad_art.plugins.discovery import call_plugin, load_plugin, plugin_names


@dataclass(frozen=True)
class Architecture:
    """All that is needed to rebuild a network: its name and the shapes of its input and output.

    ``name`` is one of :func:`model_names` or the name of your own entry. Images have
    ``in_channels`` channels of ``image_size`` × ``image_size`` pixels in [0, 1]. Sizes are 0 if the
    network's code does not state them. Raises InvalidInputError if a size is not a count.
    """

    name: str
    num_classes: int
    in_channels: int
    image_size: int

    def __post_init__(self) -> None:
        for field in ("num_classes", "in_channels", "image_size"):
            value = getattr(self, field)
            if type(value) is not int or not 0 <= value <= 100_000:
                raise InvalidInputError(f"{field} must be a whole number from 1, not {value!r}.")


@dataclass(frozen=True)
class ModelEntry:
    """A network: how to make it, for which data, and how to train it.

    Entry points of the group ``qnad_art.models`` name one, and your own code may define one
    (``qnad train my_nets.py:WIDE --data digits``)::

        def build(architecture: Architecture) -> nn.Module:
            pixels = architecture.in_channels * architecture.image_size**2
            hidden = nn.Linear(pixels, 256)
            return nn.Sequential(
                nn.Flatten(), hidden, nn.ReLU(), nn.Linear(256, architecture.num_classes)
            )

        WIDE = ModelEntry(
            Architecture("wide", num_classes=10, in_channels=1, image_size=28),
            build,
            {"epochs": 10, "learning_rate": 0.05},
        )

    Args:
        usual: the network's name and the shapes of the data that it was designed for.
        build: function of the shapes of the actual data that makes the untrained network, which
            maps images N×C×H×W in [0, 1] to logits N×K.
        training: suitable fields of :class:`~qnad_art.training.standard.TrainSettings`, at least
            ``epochs`` and ``learning_rate``.
    """

    usual: Architecture
    build: Callable[[Architecture], nn.Module]
    training: Mapping[str, Any]


Model = str | ModelEntry
"""A registered name or your own entry."""


def is_code(name: str) -> bool:
    """Whether a text names code (``FILE.py:NAME``, ``MODULE:NAME``), which ``find_model`` runs."""
    return ":" in name


def model_names() -> list[str]:
    """Names that :func:`build_model` accepts."""
    return plugin_names("model")


def model_entry(name: str) -> ModelEntry:
    """Return the entry of a registered network.

    Raises UnknownNameError if the network does not exist, InvalidInputError if the name stands for
    code, and PluginError if the plugin that registered the name is broken.
    """
    if is_code(name):
        raise InvalidInputError(
            f"The network is code, {name}, which is only run if you name it yourself: "
            "--model FILE.py:NAME, or in Python qnad_art.models.find_model(...)."
        )
    entry: ModelEntry = load_plugin("model", name)
    return entry


# Channel means and standard deviations of CIFAR-10 and CIFAR-100; lenet5 uses pixels unchanged.
_STATISTICS = {
    "lenet5": ((0.0,), (1.0,)),
    "alexnet": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "vgg16_bn": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
# The convolutions as (channels, kernel, stride, padding); None is a 2×2 max-pooling.
_Plan = tuple[tuple[int, int, int, int] | None, ...]
_LENET5: _Plan = ((6, 5, 1, 2), None, (16, 5, 1, 0), None)
_ALEXNET: _Plan = (
    *((64, 11, 4, 5), None, (192, 5, 1, 2), None),
    *((384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), None),
)
_VGG16: _Plan = tuple(
    (width, 3, 1, 1) if width else None
    for width in (64, 64, 0, 128, 128, 0, *(256, 256, 256, 0), *(512, 512, 512, 0) * 2)
)
_PLANS = {"lenet5": _LENET5, "alexnet": _ALEXNET, "vgg16_bn": _VGG16}


class ImageClassifier(nn.Module):
    """Images N×C×H×W in [0, 1] → standardised channels → features → classifier → logits N×K.

    Standardising inside the network keeps attack budgets in pixel units. If the number of channels
    is not three, each channel uses the average of the three channels' constants.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        name, channels = architecture.name, architecture.in_channels
        for constant, values in zip(("mean", "std"), _STATISTICS[name], strict=True):
            value = torch.tensor(values)
            fitted = value if len(value) == channels else value.mean().repeat(channels)
            # Constants of the architecture, not part of the weights.
            self.register_buffer(constant, fitted.view(1, channels, 1, 1), persistent=False)
        self.features, flat = _convolutions(architecture)
        self.dropout = nn.Dropout(0.3 if name == "vgg16_bn" else 0.0)
        classes = architecture.num_classes
        self.classifier: nn.Module = nn.Linear(flat, classes)
        if name == "lenet5":
            hidden = (nn.Linear(flat, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
            self.classifier = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(84, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape N×K."""
        hidden: Tensor = self.features((x - self.mean) / self.std)
        logits: Tensor = self.classifier(self.dropout(hidden.flatten(1)))
        return logits


def _convolutions(architecture: Architecture) -> tuple[nn.Sequential, int]:
    """Return the convolutional layers and the number of features that they compute per image."""
    plan = _PLANS[architecture.name]
    if architecture.name == "lenet5" and architecture.image_size < 12:
        # A smaller feature map would be smaller than the kernel of the second convolution.
        plan = tuple(step and (*step[:3], 2) for step in plan)

    def after(size: int) -> int:
        for step in plan:
            size = (size + 2 * step[3] - step[1]) // step[2] + 1 if step else size // 2
        return size

    if after(architecture.image_size) < 1:
        smallest = next(size for size in count(1) if after(size) >= 1)
        raise InvalidInputError(
            f"{architecture.name} cannot process images of {architecture.image_size} pixels; "
            f"the smallest are {smallest}×{smallest}."
        )
    layers: list[nn.Module] = []
    channels = architecture.in_channels
    for step in plan:
        if step is None:
            layers.append(nn.MaxPool2d(2))
            continue
        width, kernel, stride, padding = step
        layers.append(nn.Conv2d(channels, width, kernel, stride, padding))
        layers += [nn.BatchNorm2d(width)] if architecture.name == "vgg16_bn" else []
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(*layers), channels * after(architecture.image_size) ** 2


def build_model(
    name: Model,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build an untrained network whose weights depend only on ``seed``.

    ``name`` is one of :func:`model_names` or your own entry; the default shapes are those of the
    network's usual data. The result maps images N×C×H×W in [0, 1] to logits N×K and has an
    attribute ``architecture``. ``lenet5`` and torchvision's ``resnet18`` do not standardise their
    input. Raises UnknownNameError if the name does not exist and InvalidInputError if the images or
    classes do not fit the network.
    """
    entry = name if isinstance(name, ModelEntry) else model_entry(name)
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    given: dict[str, Any] = {field: size for field, size in sizes.items() if size is not None}
    if 0 in given.values():
        raise InvalidInputError(f"Sizes must be whole numbers from 1, not 0: {given}.")
    architecture = replace(entry.usual, **given)
    if not (architecture.in_channels and architecture.image_size):
        raise InvalidInputError(
            f"{architecture.name} does not state the shape of its images: give in_channels and "
            "image_size (--input-shape), or make the code a ModelEntry."
        )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the generators of GPUs.
        torch.default_generator.manual_seed(seed)
        model: nn.Module
        if isinstance(name, ModelEntry):
            model = entry.build(architecture)
            architecture = _checked(model, architecture)
        else:
            model = call_plugin("model", name, lambda made: made.build(architecture))
    # Bypasses Module.__setattr__, whose declared type accepts only tensors and modules.
    object.__setattr__(model, "architecture", architecture)
    return model


def _checked(model: nn.Module, architecture: Architecture) -> Architecture:
    """Return the architecture with the network's number of classes, or raise if it does not fit."""
    name, channels, size = architecture.name, architecture.in_channels, architecture.image_size
    first = next(model.parameters(), torch.empty(0))
    image = torch.zeros((1, channels, size, size), dtype=first.dtype, device=first.device)
    training = model.training
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(image).shape)
    except Exception as error:
        raise InvalidInputError(
            f"{name} cannot take images of {channels}×{size}×{size}: {error}"
        ) from error
    finally:
        model.train(training)
    classes = architecture.num_classes or shape[-1]
    if shape != (1, classes):
        raise InvalidInputError(
            f"{name} makes an output of shape {shape} from one image of {channels}×{size}×{size}, "
            f"not (1, {classes}), a logit for each class."
        )
    return replace(architecture, num_classes=classes)


def architecture_of(model: nn.Module) -> Architecture:
    """Return the :class:`Architecture` of a model made by :func:`build_model`."""
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise InvalidInputError(
            f"{type(model).__name__} has no architecture; build the model with build_model()."
        )
    return architecture


def _resnet18(architecture: Architecture) -> nn.Module:
    if architecture.in_channels != 3:
        raise InvalidInputError(
            f"resnet18 takes 3 channels, not {architecture.in_channels}; lenet5 takes grey images."
        )
    made = import_torchvision().models.resnet18
    return cast(nn.Module, made(weights=None, num_classes=architecture.num_classes))


LENET5 = ModelEntry(
    Architecture("lenet5", num_classes=10, in_channels=1, image_size=28),
    ImageClassifier,
    {"epochs": 15, "learning_rate": 0.05, "batch_size": 64},
)
ALEXNET = ModelEntry(
    Architecture("alexnet", num_classes=10, in_channels=3, image_size=32),
    ImageClassifier,
    {"epochs": 36, "learning_rate": 0.02, "augment": True},
)
VGG16_BN = ModelEntry(
    Architecture("vgg16_bn", num_classes=100, in_channels=3, image_size=32),
    ImageClassifier,
    {"epochs": 60, "learning_rate": 0.08, "augment": True, "precision": "bfloat16"},
)
RESNET18 = ModelEntry(
    Architecture("resnet18", num_classes=1000, in_channels=3, image_size=224),
    _resnet18,
    {"epochs": 40, "learning_rate": 0.08, "augment": True},
)
