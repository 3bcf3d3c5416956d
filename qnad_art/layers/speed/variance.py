"""The variance of the shot noise, in the cheapest form that is accurate enough.

A layer's variance is a constant minus Σ_j E_j², which is a small part of it (under 1 % in most
layers). Where the calibration data allow it, the kernels of Σ_j E_j² are therefore replaced by
products of one factor by output and one by input. All forms are right on average over the
calibration data, channel by channel, and keep each output's sum of kernels, so that the only error
comes from the deviation of x̂² from the mean of its channel:

- *uniform*: one number per output, times Σ_j x̂_j², which costs a pass over the activations;
- *shared*: one number per output, times one convolution with a single output;
- *mixed*: a convolution with 16 or 32 outputs, from which all outputs are mixed;
- *full* (otherwise): a convolution like the layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from qnad_art.layers.kernels import VarianceKernels

NEGLIGIBLE = 1e-3
"""Terms of the variance that cannot exceed this fraction of it are left out."""
TOLERANCE = 1e-3
"""Largest predicted relative error (root mean square) of the variance in a cheaper form."""
LINEAR = 3.0
"""Factor by which linear layers must be better. They cost little, and their inputs are less
independent: on VGG16-BN's classifier, the error was 2.2 times the predicted one."""
MIXED = 1.1
"""Factor by which mixed forms must be better: on ResNet-18 the error was up to 1.13 times the
predicted one."""
WORTH = 0.6
"""Largest fraction of the full convolution's products for which a mixed form is worthwhile."""

Squares = tuple[float, ...]
"""Mean of x̂² of every input channel over the calibration data."""
Form = Literal["uniform", "shared", "mixed 16", "mixed 32", "full"]


@dataclass(frozen=True, kw_only=True)
class Reduced(VarianceKernels):
    """Kernels whose ``x2`` is replaced by approximately the product of mixing and patterns.

    Args:
        mixing: (out,) for a single pattern, (out, patterns, 1, …) for several.
        patterns: (patterns, in, …); ``None`` stands for one pattern of ones.
    """

    mixing: Tensor
    patterns: Tensor | None = None


def best_economy(
    kernels: VarianceKernels,
    *,
    scale_x: float,
    spread: float | None,
    squares: Squares | None,
    grouped: bool,
) -> Callable[[VarianceKernels], VarianceKernels]:
    """The function that brings a layer's kernels into their cheapest accurate form.

    ``spread`` as in :func:`cheapest`, ``None`` if unknown. The form is right on average if the
    channels' mean ``squares`` are known.
    """
    drop_x = negligible_x(kernels, scale_x=scale_x)
    known = spread is not None and reducible(kernels, grouped=grouped)
    form = cheapest(kernels, spread=spread) if known and spread is not None else "full"

    def economise(kernels: VarianceKernels) -> VarianceKernels:
        kernels = replace(kernels, x=None) if drop_x else kernels
        if form == "full":
            return kernels
        return right_on_average(kernels, _MAKERS[form](kernels), squares)

    return economise


def at_the_mean(kernels: VarianceKernels, squares: Squares) -> VarianceKernels:
    """Kernels with ``x2`` at the mean activations, which is accurate enough for tuning."""
    return right_on_average(kernels, replace(kernels, x2=None), squares)


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
    """Largest allowed predicted error of ``form``; 0 if the form is not worthwhile."""
    linear, mixture = terms.dim() == 2, form.startswith("mixed")
    if not mixture:
        return TOLERANCE / (LINEAR if linear else 1)
    outputs, inputs = terms.flatten(1).shape
    products = int(form.split()[1]) * (outputs + inputs)
    return 0 if linear or products > WORTH * outputs * inputs else TOLERANCE / MIXED


def right_on_average(
    kernels: VarianceKernels, form: VarianceKernels, squares: Squares | None
) -> VarianceKernels:
    """``form`` with a constant that compensates its error at the mean activations."""
    if squares is None:
        return form
    left = _residual(_x2(kernels), form)
    means = left.new_tensor(squares).view(-1, *(1,) * (left.dim() - 2))
    constant = form.constant
    return replace(form, constant=constant + (left * means).sum(1).view_as(constant))


def uniform(kernels: VarianceKernels) -> Reduced:
    """``x2`` as one number per output."""
    return _reduced(kernels, _x2(kernels).flatten(1).mean(1))


def shared(kernels: VarianceKernels) -> Reduced:
    """``x2`` in its rank-one form, which has the same row and column sums."""
    terms = _x2(kernels).flatten(1)
    out = terms.mean(1)
    mixing = out / out.mean().clamp_max(-torch.finfo(out.dtype).tiny)
    return _reduced(kernels, mixing, terms.mean(0).view_as(_x2(kernels)[:1]))


def mixed(kernels: VarianceKernels, *, rank: int) -> Reduced:
    """``x2`` of this rank: the shared form, and the leading directions of the rest.

    Gradients treat the directions as constants.
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
"""In the order of their cost."""


def error(kernels: VarianceKernels, form: VarianceKernels, *, spread: float) -> float:
    """Predicted root mean square relative error of the variance with ``form``.

    It is the larger of two predictions: that all activations under a kernel are independent, and
    that those of one channel are equal.
    """
    terms = _x2(kernels).detach()
    residual = _residual(terms, form).flatten(2 if terms.dim() > 2 else 1)
    squares = residual.square().flatten(1).sum(1).max()
    if terms.dim() > 2:
        squares = torch.maximum(squares, residual.sum(2).square().sum(1).max())
    return float(squares.detach().sqrt()) * spread / math.prod(terms.shape[1:])


def _residual(terms: Tensor, form: VarianceKernels) -> Tensor:
    """The kernels ``terms`` minus their approximation by ``form``."""
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
