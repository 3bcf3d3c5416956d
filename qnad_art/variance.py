"""The variance of the shot noise, in the cheapest form that is good enough.

A layer's variance is a constant minus Σ_j E_j², a small part of it (under 1 % in most layers), so
where the calibration data allow it the kernels of Σ_j E_j² are taken by output and input apart. All
forms are right on average over the calibration data, channel by channel, and keep each output's sum
of kernels, so that what is left is how x̂² departs from its channel's mean:

- *uniform*: one number an output, times Σ_j x̂_j², which costs a pass over the activations;
- *shared*: one number an output, times one convolution with a single output;
- otherwise a convolution like the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from qnad_art.kernels import Kernels

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

Squares = tuple[float, ...]
"""Mean of x̂² of every input channel over the calibration data."""
Form = Literal["uniform", "shared", "full"]


def cheapest(kernels: Kernels, *, spread: float) -> Form:
    """The cheapest form whose error stays within :data:`TOLERANCE`.

    ``spread`` is the standard deviation of x̂² over the calibration data, within a channel.
    """
    values = {name: kernel.detach() for name, kernel in kernels.items()}
    tolerance = TOLERANCE / (LINEAR if values["second.x2"].dim() == 2 else 1)
    if error(values, uniform(values), spread=spread) <= tolerance:
        return "uniform"
    return "shared" if error(values, shared(values), spread=spread) <= tolerance else "full"


def take(kernels: Kernels, form: Form, *, squares: Squares | None = None) -> Kernels:
    """``kernels`` in a form, right on average where the channels' mean ``squares`` are known."""
    if form == "full":
        return kernels
    return right_on_average(kernels, (uniform if form == "uniform" else shared)(kernels), squares)


def form_of(names: Iterable[str]) -> Form:
    """The form of kernels that have these names."""
    found = set(names)
    if "shared.out" not in found:
        return "full"
    return "shared" if "shared.x2" in found else "uniform"


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
    if "shared.out" not in form:
        return terms
    pattern = form.get("shared.x2", torch.ones_like(terms[:1]))
    factors = form["shared.out"].view(-1, *(1,) * (terms.dim() - 1))
    return torch.addcmul(terms, factors, pattern, value=-1)
