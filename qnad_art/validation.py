"""Checks of a classifier's inputs and labels, which are arrays or tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qnad_art.errors import InvalidInputError


def check_inputs(x: Any, input_shape: tuple[int, ...]) -> Any:
    """``x`` as float32, still as an ndarray or a tensor.

    Raises:
        InvalidInputError: ``x`` is not numeric, not (N, *input_shape), or not finite.
    """
    if isinstance(x, Tensor):
        numeric = not x.is_complex()
        values: Any = x.to(torch.float32) if numeric else x
        finite = numeric and all_finite(values)
    else:
        array = np.asarray(x)
        numeric = array.dtype.kind in "biuf"
        # Contiguous, because torch does not accept negative strides.
        values = np.ascontiguousarray(array, dtype=np.float32) if numeric else array
        finite = bool(np.isfinite(values).all()) if numeric else False
    if not numeric:
        raise InvalidInputError(f"The input has dtype {values.dtype}; give real numbers.")
    if tuple(values.shape[1:]) != tuple(input_shape):
        raise InvalidInputError(
            f"The input has shape {tuple(values.shape)}; expected (N, "
            f"{', '.join(map(str, input_shape))})."
        )
    if not finite:
        raise InvalidInputError("The input holds NaN or infinite values; clean it first.")
    return values


def check_labels(y: Any, count: int, nb_classes: int) -> Any:
    """``y`` with one row of ``nb_classes`` per input, the form that all of ART understands.

    Valid labels are class indices (N,) or (N, 1) in [0, nb_classes), or rows of nb_classes values
    (probabilities, one-hot). An ndarray stays an ndarray, and a tensor a tensor.

    Raises:
        InvalidInputError: ``y`` has another shape, is not numeric or finite, or an index is out of
            range.
    """
    wanted = (count, nb_classes)
    as_attacks_do = isinstance(y, Tensor) and y.shape == wanted and y.is_floating_point()
    if as_attacks_do and nb_classes > 1 and all_finite(y):  # Save a copy to NumPy in every step.
        return y
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        raise InvalidInputError(
            f"The labels (dtype {labels.dtype}) must be finite numbers: class indices or one-hot."
        )
    if labels.shape == wanted and nb_classes > 1:
        return y
    if labels.shape not in {(count,), (count, 1)}:
        raise InvalidInputError(
            f"The labels have shape {labels.shape}; expected ({count},) or ({count}, {nb_classes})."
        )
    if count and (labels.min() < 0 or labels.max() >= nb_classes or (labels % 1).any()):
        raise InvalidInputError(
            f"The labels run from {labels.min()} to {labels.max()}; valid are the whole numbers "
            f"0 to {nb_classes - 1}."
        )
    rows = np.zeros((count, nb_classes), dtype=np.float32)
    rows[np.arange(count), labels.ravel().astype(int)] = 1
    return torch.as_tensor(rows, device=y.device) if isinstance(y, Tensor) else rows


def all_finite(x: Tensor) -> bool:
    """Whether ``x`` has neither NaN nor infinities; one pass over it, where isfinite takes five."""
    if not x.is_floating_point() or x.numel() == 0:
        return True
    extremes = torch.stack(torch.aminmax(x.detach()))  # They are NaN if any value is.
    return all(map(math.isfinite, extremes.tolist()))


def image_range(classifier: Any) -> dict[str, Any]:
    """The range and standardisation of an ART classifier's images, as far as it has them.

    Returns:
        ``clip``: smallest and largest value; ``mean`` and ``std`` of each channel, or one value for
        all channels, by which the network's inputs are standardised.
    """
    found: dict[str, Any] = {}
    if classifier.clip_values is not None:
        low, high = classifier.clip_values
        found["clip"] = float(np.min(low)), float(np.max(high))
    mean, std = (getattr(classifier.preprocessing, name, None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        flat = (np.asarray(values, dtype=float).ravel() for values in (mean, std))
        means, stds = np.broadcast_arrays(*flat)
        found |= {"mean": tuple(means.tolist()), "std": tuple(stds.tolist())}
    return found
