"""Attacks of other libraries as ART attacks.

Such libraries take tensors and a PyTorch module that maps images in [0, 1] to logits. ART has
arrays, and classifiers with preprocessing and clip values. A plugin subclasses
:class:`ForeignAttack`.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators import BaseEstimator
from art.estimators.classification import ClassifierMixin, PyTorchClassifier
from art.utils import check_and_transform_label_format
from torch import Tensor, nn

from qnad_art.errors import InvalidInputError
from qnad_art.network.modes import without_weight_gradients


class Network(nn.Module):
    """An ART classifier as one differentiable module that maps images (N, …) in [0, 1] to logits.

    It contains the preprocessing with its gradient (or ART's estimate of it), and also the noise,
    which is part of the classifier's module.

    Args:
        classifier: classifier with clip values.

    Raises:
        InvalidInputError: the classifier has no clip values, or they differ between pixels.
    """

    def __init__(self, classifier: PyTorchClassifier) -> None:
        super().__init__()
        self.low, self.span = _range(classifier)
        self.module = classifier.model
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        images = self.low + self.span * x
        if self.classifier.all_framework_preprocessing:
            images, _ = self.classifier._apply_preprocessing(images, y=None, no_grad=False)
        else:
            images = _Preprocessed.apply(images, self.classifier)
        logits: Tensor = self.module(images)
        return logits


class DeclaredSettings(EvasionAttack):  # type: ignore[misc]
    """Base class of attacks that declare their settings.

    A subclass declares its settings as annotated class attributes, each with its default
    (``steps: int = 40``). Values are checked by annotation: ``int`` is a whole number from 1,
    ``float`` a number above 0; ``bool`` and ``Literal`` have their usual meaning.

    Args:
        estimator: ``PyTorchClassifier`` that returns logits.
        settings: settings by name; all attacks have ``batch_size``, the images per pass.

    Raises:
        TypeError: an unknown setting.
        ValueError: an invalid value.
    """

    batch_size: int = 250

    _estimator_requirements = (BaseEstimator, ClassifierMixin)
    _fields: ClassVar[Mapping[str, Any]] = {"batch_size": int}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = inspect.get_annotations(cls, eval_str=True)
        variables = {n for n, kind in declared.items() if ClassVar in (kind, get_origin(kind))}
        own = {name: kind for name, kind in declared.items() if name not in variables}
        cls._fields = {**cls._fields, **own}
        cls.attack_params = list(cls._fields)
        keyword = inspect.Parameter.KEYWORD_ONLY
        settings = (
            inspect.Parameter(name, keyword, default=getattr(cls, name), annotation=kind)
            for name, kind in cls._fields.items()
        )
        estimator = inspect.Parameter("estimator", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__signature__ = inspect.Signature([estimator, *settings])

    def __init__(self, estimator: Any, **settings: Any) -> None:
        super().__init__(estimator=estimator)
        for name in settings:
            if name not in self._fields:
                valid = ", ".join(self._fields)
                raise TypeError(f"{type(self).__name__} has no setting {name!r}; valid: {valid}.")
        self.set_params(**settings)

    def _check_params(self) -> None:
        for name, kind in self._fields.items():
            value = getattr(self, name)
            wanted = _demand(kind, value)
            if wanted is not None:
                raise ValueError(f"{name} must be {wanted}, not {value!r}.")


class ForeignAttack(DeclaredSettings):
    """Base class of attacks that another library carries out batch by batch.

    A subclass declares its settings and implements :meth:`perturb`. Random numbers come from the
    global generators, as in ART's own attacks, so that
    :func:`~qnad_art.benchmark.threats.victim.seeded` makes them repeatable.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted.

        Args:
            x: images (N, …).
            y: class indices (N,) or one-hot rows; ``None`` for the classifier's predictions.
        """
        network = Network(self.estimator).eval()
        images = torch.as_tensor((x - network.low) / network.span, dtype=torch.float32)
        images = images.clamp(0, 1)
        if y is None:
            y = self.estimator.predict(x, batch_size=self.batch_size)
        rows = check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes)
        labels = torch.as_tensor(rows.argmax(1))
        made = [images[:0]]
        with without_weight_gradients(self.estimator.model):
            for start in range(0, len(x), self.batch_size):
                part = slice(start, start + self.batch_size)
                device = self.estimator.device
                found = self.perturb(network, images[part].to(device), labels[part].to(device))
                made.append(found.detach().cpu())
        examples: np.ndarray = network.low + network.span * torch.cat(made).clamp(0, 1).numpy()
        return examples.astype(np.float32)

    @abstractmethod
    def perturb(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial examples of one batch.

        Args:
            network: network under attack. ``network.span`` is the range of the original images,
                so a budget ε is ``ε / network.span`` here.
            x, y: images (N, …) in [0, 1] and class indices (N,), on the classifier's device.

        Returns:
            Images (N, …); values outside [0, 1] are clipped.
        """


def _demand(kind: Any, value: Any) -> str | None:
    """What a setting of this kind must be, or ``None`` if ``value`` is valid."""
    if kind is int:
        return None if type(value) is int and value > 0 else "a whole number from 1"
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number and 0 < value < np.inf else "a number above 0"
    valid = (False, True) if kind is bool else get_args(kind)
    if any(value is one or (value == one and kind is not bool) for one in valid):
        return None
    return " or ".join(map(repr, valid))


def _range(classifier: PyTorchClassifier) -> tuple[float, float]:
    """The lowest value of an image, and the difference between the highest and the lowest."""
    if classifier.clip_values is None:
        raise InvalidInputError(
            "The classifier has no clip values, and this attack needs the range of its images: "
            "make it with clip_values=(0.0, 1.0)."
        )
    low, high = (np.unique(np.asarray(values)) for values in classifier.clip_values)
    if len(low) != 1 or len(high) != 1:
        raise InvalidInputError(
            "The classifier's clip values differ from pixel to pixel; this attack takes one range "
            "for all: make it with clip_values=(0.0, 1.0)."
        )
    return float(low[0]), float(high[0] - low[0])


class _Preprocessed(torch.autograd.Function):
    """Preprocessing that ART carries out in NumPy, with ART's estimate of its gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, classifier: PyTorchClassifier) -> Tensor:
        ctx.classifier, ctx.images = classifier, images.detach().cpu().numpy()
        made, _ = classifier._apply_preprocessing(ctx.images, y=None, fit=False)
        return torch.as_tensor(made, dtype=images.dtype, device=images.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        arrived = gradient.detach().cpu().numpy()
        with torch.enable_grad():
            through = ctx.classifier._apply_preprocessing_gradient(ctx.images, arrived)
        return torch.as_tensor(through, dtype=gradient.dtype, device=gradient.device), None
