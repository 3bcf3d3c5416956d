"""The variance of the shot noise, in the cheapest form that is good enough.

A layer's variance is a constant minus Σ_j E_j², a small part of it (under 1 % in most layers), so
where the calibration data allow it the kernels of Σ_j E_j² are taken by output and input apart. All
forms are right on average over the calibration data, channel by channel, and keep each output's sum
of kernels, so that what is left is how x̂² departs from its channel's mean:

- *uniform*: one number an output, times Σ_j x̂_j², which costs a pass over the activations;
- *shared*: one number an output, times one convolution with a single output;
- *mixed*: outputs mixed from the 16 or 32 of one convolution;
- otherwise (*full*) a convolution like the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qnad_art.layers.kernels import Kernels, VarianceKernels

NEGLIGIBLE = 1e-3
"""Terms of the variance that cannot exceed this fraction of it are left out."""
TOLERANCE = 1e-3
"""Predicted root mean square relative error of the variance up to which a cheaper form is taken."""
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


@dataclass(frozen=True, kw_only=True)
class Reduced(VarianceKernels):
    """Kernels with a cheaper form in place of ``x2``, about the product of mixing and patterns.

    Args:
        mixing: (out,) for a single pattern, (out, patterns, 1, …) for several.
        patterns: (patterns, in, …); ``None`` for one of ones.
    """

    mixing: Tensor
    patterns: Tensor | None = None


class Economy(NamedTuple):
    """What is saved of a layer's variance: the form of x2, and whether the term in x is dropped."""

    form: Form = "full"
    drop_x: bool = False


def best_economy(
    kernels: Kernels, *, scale_x: float, spread: float | None, grouped: bool
) -> Economy:
    """The cheapest that is good enough; ``spread`` as in :func:`cheapest`, ``None`` if unknown."""
    variance = kernels.variance
    if variance is None:
        return Economy()
    known = spread is not None and reducible(variance, grouped=grouped)
    form = cheapest(variance, spread=spread) if known and spread is not None else "full"
    return Economy(form, negligible_x(variance, scale_x=scale_x))


def economy_of(kernels: Kernels) -> Economy:
    """The one that :func:`economise` made these kernels with."""
    variance = kernels.variance
    form: Form = "full"
    if isinstance(variance, Reduced):
        if variance.mixing.dim() > 1:
            form = "mixed 16" if variance.mixing.shape[1] <= 16 else "mixed 32"
        else:
            form = "uniform" if variance.patterns is None else "shared"
    return Economy(form, variance is not None and variance.x is None)


def economise(kernels: Kernels, economy: Economy, squares: Squares | None = None) -> Kernels:
    """Cheaper kernels, right on average where the channels' mean ``squares`` are known."""
    variance = kernels.variance
    if variance is None:
        return kernels
    if economy.drop_x:
        variance = replace(variance, x=None)
    if economy.form != "full":
        variance = right_on_average(variance, _MAKERS[economy.form](variance), squares)
    return replace(kernels, variance=variance)


def at_the_mean(
    kernels: Kernels, *, scale_x: float, squares: Squares | None, grouped: bool
) -> Kernels:
    """``x2`` at the mean activations: no pass over them, and good enough to tune with."""
    variance = kernels.variance
    if variance is None or squares is None or not reducible(variance, grouped=grouped):
        return kernels
    x = None if negligible_x(variance, scale_x=scale_x) else variance.x
    rest = replace(variance, x=x, x2=None)
    return replace(kernels, variance=right_on_average(variance, rest, squares))


def reducible(kernels: VarianceKernels, *, grouped: bool) -> bool:
    """Whether the variance has other forms than the full one."""
    return not grouped and kernels.cos is None


def negligible_x(kernels: VarianceKernels, *, scale_x: float) -> bool:
    """Whether the term in a0·a2 cannot matter (|x̂| ≤ 1)."""
    assert kernels.x is not None
    return not bool(kernels.x.flatten(1).abs().mean(1).max() * scale_x > NEGLIGIBLE)


def cheapest(kernels: VarianceKernels, *, spread: float) -> Form:
    """The cheapest form whose error stays within :data:`TOLERANCE`.

    ``spread`` is the standard deviation of x̂² over the calibration data, within a channel.
    """
    kernels = kernels.map(Tensor.detach)
    for form, make in _MAKERS.items():
        tolerance = _tolerance(form, _x2(kernels))
        if tolerance > 0 and error(kernels, make(kernels), spread=spread) <= tolerance:
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


def right_on_average(
    kernels: VarianceKernels, form: VarianceKernels, squares: Squares | None
) -> VarianceKernels:
    """``form`` with a constant that makes up for what it leaves out at the mean activations."""
    if squares is None:
        return form
    left = _residual(_x2(kernels), form)
    means = left.new_tensor(squares).view(-1, *(1,) * (left.dim() - 2))
    constant = form.constant
    return replace(form, constant=constant + (left * means).sum(1).view_as(constant))


def uniform(kernels: VarianceKernels) -> Reduced:
    """``x2`` as one number an output."""
    return _reduced(kernels, _x2(kernels).flatten(1).mean(1))


def shared(kernels: VarianceKernels) -> Reduced:
    """``x2`` in its rank-one form, which has the same row and column sums."""
    terms = _x2(kernels).flatten(1)
    out = terms.mean(1)
    mixing = out / out.mean().clamp_max(-torch.finfo(out.dtype).tiny)
    return _reduced(kernels, mixing, terms.mean(0).view_as(_x2(kernels)[:1]))


def mixed(kernels: VarianceKernels, *, rank: int) -> Reduced:
    """``x2`` of this rank: the shared form, and of the rest the directions that weigh most.

    In training the directions count as constants.
    """
    terms, one = _x2(kernels), shared(kernels)
    assert one.patterns is not None
    rest = _residual(terms, one).flatten(1)
    wide = rest.detach().to(torch.promote_types(rest.dtype, torch.float32))
    directions = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, 1 - rank :].to(rest.dtype)
    mixing = torch.cat([one.mixing[:, None], directions], 1)
    patterns = torch.cat([one.patterns.flatten(1), directions.T @ rest])
    return _reduced(
        kernels,
        mixing.view(*mixing.shape, *(1,) * (terms.dim() - 2)),
        patterns.unflatten(1, terms.shape[1:]),
    )


_MAKERS: dict[Form, Callable[[VarianceKernels], Reduced]] = {
    "uniform": uniform,
    "shared": shared,
    "mixed 16": partial(mixed, rank=16),
    "mixed 32": partial(mixed, rank=32),
}
"""By what they cost."""


def error(kernels: VarianceKernels, form: VarianceKernels, *, spread: float) -> float:
    """Relative error of the variance that ``form`` makes, in the mean square.

    The activations of one channel under a kernel are alike, those of channels are not: the larger
    of what follows if they are all independent and if they are equal within a channel.
    """
    terms = _x2(kernels).detach()
    residual = _residual(terms, form).flatten(2 if terms.dim() > 2 else 1)
    squares = residual.square().flatten(1).sum(1).max()
    if terms.dim() > 2:
        squares = torch.maximum(squares, residual.sum(2).square().sum(1).max())
    return float(squares.detach().sqrt()) * spread / math.prod(terms.shape[1:])


def _residual(terms: Tensor, form: VarianceKernels) -> Tensor:
    """What ``form`` leaves out of the kernels ``terms``."""
    if not isinstance(form, Reduced):
        return terms
    if form.mixing.dim() > 1 and form.patterns is not None:
        found = form.mixing.flatten(1) @ form.patterns.flatten(1)
        return terms - found.view_as(terms)
    pattern = torch.ones_like(terms[:1]) if form.patterns is None else form.patterns
    factors = form.mixing.view(-1, *(1,) * (terms.dim() - 1))
    return torch.addcmul(terms, factors, pattern, value=-1)


def _x2(kernels: VarianceKernels) -> Tensor:
    assert kernels.x2 is not None
    return kernels.x2


def _reduced(kernels: VarianceKernels, mixing: Tensor, patterns: Tensor | None = None) -> Reduced:
    return Reduced(**{**vars(kernels), "x2": None}, mixing=mixing, patterns=patterns)
