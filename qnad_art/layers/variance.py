"""The variance of the shot noise, in the cheapest form that is good enough.

A layer's variance is a constant minus Σ_j E_j², a small part of it (under 1 % in most layers), so
where the calibration data allow it the kernels of Σ_j E_j² are taken by output and input apart. All
forms are right on average over the calibration data, channel by channel, and keep each output's sum
of kernels, so that what is left is how x̂² departs from its channel's mean:

- *uniform*: one number an output, times Σ_j x̂_j², which costs a pass over the activations;
- *shared*: one number an output, times one convolution with a single output;
- *mixed*: outputs mixed from the 16 or 32 of one convolution;
- otherwise a convolution like the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from qnad_art.layers.kernels import Kernels

NEGLIGIBLE = 1e-3
"""Terms of the variance that cannot exceed this fraction of it are left out."""
TOLERANCE = 1e-3
"""Predicted root mean square relative error of the variance up to which a cheaper form is taken."""


def drop_negligible(kernels: Kernels, *, scale_x: float) -> Kernels:
    """Leave out ``second.x``, the term in a0·a2, where it cannot matter (|x̂| ≤ 1)."""
    largest = kernels["second.x"].flatten(1).abs().mean(1).max() * scale_x
    if largest > NEGLIGIBLE:
        return kernels
    return {name: kernel for name, kernel in kernels.items() if name != "second.x"}


LINEAR = 3.0
"""Linear layers, which cost little, must do better: their inputs are less independent, and on
VGG16-BN's classifier the error was 2.2 times what was predicted."""

MIXED = 1.1
"""The mixed forms must be better by this: on ResNet-18 the error was up to 1.13 times what was
predicted."""
WORTH = 0.6
"""Part of the full convolution's products that a mixed form may take, to be worth it."""

Squares = tuple[float, ...]
"""Mean of x̂² of every input channel over the calibration data."""
Form = Literal["uniform", "shared", "mixed 16", "mixed 32", "full"]


def cheapest(kernels: Kernels, *, spread: float) -> Form:
    """The cheapest form whose error stays within :data:`TOLERANCE`.

    ``spread`` is the standard deviation of x̂² over the calibration data, within a channel.
    """
    values = {name: kernel.detach() for name, kernel in kernels.items()}
    for form, make in _MAKERS.items():
        tolerance = _tolerance(form, values["second.x2"])
        if tolerance > 0 and error(values, make(values), spread=spread) <= tolerance:
            return form
    return "full"


def _tolerance(form: Form, terms: Tensor) -> float:
    """Up to what predicted error ``form`` is taken; 0 where it is not worth it."""
    linear, mixture = terms.dim() == 2, form.startswith("mixed")
    if not mixture:
        return TOLERANCE / (LINEAR if linear else 1)
    outputs, inputs = terms.flatten(1).shape
    products = int(form.split()[1]) * (outputs + inputs)
    return 0 if linear or products > WORTH * outputs * inputs else TOLERANCE / MIXED


def take(kernels: Kernels, form: Form, *, squares: Squares | None = None) -> Kernels:
    """``kernels`` in a form, right on average where the channels' mean ``squares`` are known."""
    if form == "full":
        return kernels
    return right_on_average(kernels, _MAKERS[form](kernels), squares)


def form_of(kernels: Kernels) -> Form:
    """The form that these kernels are in."""
    if "mixed.x2" in kernels:
        return "mixed 16" if len(kernels["mixed.x2"]) <= 16 else "mixed 32"
    if "shared.out" not in kernels:
        return "full"
    return "shared" if "shared.x2" in kernels else "uniform"


def at_the_mean(kernels: Kernels, squares: Squares) -> Kernels:
    """``second.x2`` at the mean activations: no pass over them, and good enough to tune with."""
    rest = {name: kernel for name, kernel in kernels.items() if name != "second.x2"}
    return right_on_average(kernels, rest, squares)


def right_on_average(kernels: Kernels, form: Kernels, squares: Squares | None) -> Kernels:
    """``form`` with a constant that makes up for what it leaves out at the mean activations."""
    if squares is None:
        return form
    left = _residual(kernels["second.x2"], form)
    means = left.new_tensor(squares).view(-1, *(1,) * (left.dim() - 2))
    constant = form["variance.1"]
    return {**form, "variance.1": constant + (left * means).sum(1).view_as(constant)}


def uniform(kernels: Kernels) -> Kernels:
    """``second.x2`` as one number an output."""
    rest = {name: kernel for name, kernel in kernels.items() if name != "second.x2"}
    return {**rest, "shared.out": kernels["second.x2"].flatten(1).mean(1)}


def shared(kernels: Kernels) -> Kernels:
    """``second.x2`` in its rank-one form, which has the same row and column sums."""
    terms = kernels["second.x2"].flatten(1)
    out = terms.mean(1)
    rest = {name: kernel for name, kernel in kernels.items() if name != "second.x2"}
    return {
        **rest,
        "shared.x2": terms.mean(0).view_as(kernels["second.x2"][:1]),
        "shared.out": out / out.mean().clamp_max(-torch.finfo(out.dtype).tiny),
    }


def mixed(kernels: Kernels, *, rank: int) -> Kernels:
    """``second.x2`` of this rank: the shared form, and of the rest the directions that weigh most.

    In training the directions count as constants.
    """
    terms = kernels["second.x2"]
    one = shared(kernels)
    rest = _residual(terms, one).flatten(1)
    wide = rest.detach().to(torch.promote_types(rest.dtype, torch.float32))
    directions = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, 1 - rank :].to(rest.dtype)
    out = torch.cat([one.pop("shared.out")[:, None], directions], 1)
    patterns = torch.cat([one.pop("shared.x2").flatten(1), directions.T @ rest])
    return {
        **one,
        "mixed.x2": patterns.unflatten(1, terms.shape[1:]),
        "mixed.out": out.view(*out.shape, *(1,) * (terms.dim() - 2)),
    }


_MAKERS: dict[Form, Callable[[Kernels], Kernels]] = {
    "uniform": uniform,
    "shared": shared,
    "mixed 16": partial(mixed, rank=16),
    "mixed 32": partial(mixed, rank=32),
}
"""By what they cost."""


def error(kernels: Kernels, form: Kernels, *, spread: float) -> float:
    """Relative error of the variance that ``form`` makes, in the mean square.

    The activations of one channel under a kernel are alike, those of channels are not: the larger
    of what follows if they are all independent and if they are equal within a channel.
    """
    terms = kernels["second.x2"].detach()
    residual = _residual(terms, form).flatten(2 if terms.dim() > 2 else 1)
    squares = residual.square().flatten(1).sum(1).max()
    if terms.dim() > 2:
        squares = torch.maximum(squares, residual.sum(2).square().sum(1).max())
    return float(squares.detach().sqrt()) * spread / math.prod(terms.shape[1:])


def _residual(terms: Tensor, form: Kernels) -> Tensor:
    """What ``form`` leaves out of the kernels ``terms``."""
    if "mixed.out" in form:
        found = form["mixed.out"].flatten(1) @ form["mixed.x2"].flatten(1)
        return terms - found.view_as(terms)
    if "shared.out" not in form:
        return terms
    pattern = form.get("shared.x2", torch.ones_like(terms[:1]))
    factors = form["shared.out"].view(-1, *(1,) * (terms.dim() - 1))
    return torch.addcmul(terms, factors, pattern, value=-1)
