"""Defences that change the input: ART's preprocessors, inside the network's module.

Because they are in the module, attacks that rebuild their classifier keep them, any number of them
can be chained, and their gradient is the identity (BPDA, Athalye et al. 2018) in every attack.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from art.defences.preprocessor.preprocessor import Preprocessor
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std import StandardisationMeanStd
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from pydantic import Field
from torch import Tensor, nn

from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import Count, clip_range, copy_of
from qnad_art.benchmark.threats.victim import seeded, with_module
from qnad_art.errors import InvalidInputError
from qnad_art.layers.noise_source import NoiseSource

FROM_CLASSIFIER = ("clip_values", "channels_first", "device_type")
"""Arguments of ART's preprocessors that the classifier determines."""


class Preprocessed(nn.Module):
    """A network behind a preprocessor of ART.

    Args:
        network: the network; it sees the changed images.
        preprocessor: ART's object, which takes and gives arrays.
        clip: range of the input; values that an attack or noise puts outside are clipped first.
        noise: source of the seeds of a preprocessor that draws from NumPy's generator; ``None`` for
            a deterministic one.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        clip: tuple[float, float],
        noise: NoiseSource | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessor = preprocessor
        self.clip = clip
        self.noise = noise
        self.noisy = noise is not None

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for the images as one draw changes them."""
        with self.noise.forward_pass() if self.noise else nullcontext():
            result: Tensor = self.network(_StraightThrough.apply(x, self.changed))
        return result

    def changed(self, x: Tensor) -> Tensor:
        """Images as the network sees them, without gradient; without noise, in one fixed draw."""
        images, seed = np.clip(x.detach().cpu().numpy(), *self.clip), 0
        if self.noise is not None:
            draw = float(self.noise.normal_like(torch.empty(1, dtype=torch.float64)))
            seed = int(abs(draw) * 2**48) % 2**32 if self.noisy else 0
        with seeded(seed):
            changed, _ = self.preprocessor(images)
        return torch.as_tensor(np.ascontiguousarray(changed)).to(x)


class _StraightThrough(torch.autograd.Function):
    """``change`` in the forward pass, the identity in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Any) -> Tensor:
        result: Tensor = change(x)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class Preprocessing(Defence):
    """A preprocessor of ART before the network, with the step's settings as its arguments."""

    art_class: ClassVar[str]

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the preprocessor in its module."""
        art_class = getattr(import_module("art.defences.preprocessor"), self.art_class)
        preprocessor = made_for(classifier, art_class, **self.model_dump())
        return preprocessed(classifier, preprocessor, self.name, work)


class FeatureSqueezing(Preprocessing):
    """Fewer grey levels. Xu, Evans, Qi, NDSS 2018, arXiv 1704.01155.

    Args:
        bit_depth: bits per channel.
    """

    name: ClassVar[str] = "feature-squeezing"
    art_class: ClassVar[str] = "FeatureSqueezing"

    bit_depth: Annotated[int, Field(strict=True, ge=1, le=64)] = 1


class SpatialSmoothing(Preprocessing):
    """Local median. Xu, Evans, Qi, NDSS 2018, arXiv 1704.01155.

    Args:
        window_size: side of the window in pixels.
    """

    name: ClassVar[str] = "spatial-smoothing"
    art_class: ClassVar[str] = "SpatialSmoothing"

    window_size: Count = 3


class JpegCompression(Preprocessing):
    """JPEG compression. Dziugaite, Ghahramani, Roy 2016, arXiv 1608.00853.

    Args:
        quality: quality of the compressed image, 1 to 100.
    """

    name: ClassVar[str] = "jpeg"
    art_class: ClassVar[str] = "JpegCompression"

    quality: Annotated[int, Field(strict=True, ge=1, le=100)] = 50


def made_for(classifier: PyTorchClassifier, art_class: Any, **settings: Any) -> Preprocessor:
    """A preprocessor of ART for images of ``classifier``."""
    taken = inspect.signature(art_class.__init__).parameters
    values = (clip_range(classifier), classifier.channels_first, classifier.device_type)
    given = {name: v for name, v in zip(FROM_CLASSIFIER, values, strict=True) if name in taken}
    return art_class(**given, **settings)


def preprocessed(
    classifier: PyTorchClassifier, preprocessor: Preprocessor, name: str, work: Work
) -> PyTorchClassifier:
    """A copy of ``classifier`` behind ``preprocessor``.

    Raises:
        InvalidInputError: the preprocessor cannot take these images or changes their shape, or
            the classifier standardises its input, which would come first.
    """
    if not all(map(_is_identity, classifier.preprocessing_operations)):
        raise InvalidInputError(
            f"{name} must come before the classifier's own preprocessing, "
            f"{classifier.preprocessing_operations}; put that into the network's module."
        )
    clip, some = clip_range(classifier), work.training.x[:4]
    network = copy_of(classifier).model
    tried = []
    for seed in (0, 1):
        with seeded(seed):
            try:
                changed, _ = preprocessor(np.clip(some, *clip))
            except (ValueError, TypeError, ImportError, AttributeError, AssertionError) as error:
                raise InvalidInputError(f"{name} cannot take these images: {error}") from error
        tried.append(np.asarray(changed))
    if tried[0].shape != some.shape:
        raise InvalidInputError(
            f"{name} makes images of shape {tried[0].shape[1:]} from {some.shape[1:]}, which the "
            "network cannot take."
        )
    noise = None if np.array_equal(tried[0], tried[1]) else NoiseSource(work.seed)
    return with_module(classifier, Preprocessed(network, preprocessor, clip, noise))


def _is_identity(operation: Preprocessor) -> bool:
    """Whether it is the standardisation by mean 0 and deviation 1 that ART always adds."""
    if not isinstance(operation, StandardisationMeanStd | StandardisationMeanStdPyTorch):
        return False
    return bool(np.all(operation.mean == 0) and np.all(operation.std == 1))
