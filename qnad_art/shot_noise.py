"""Shot noise onto a layer's output, piece by piece, so that no piece leaves the processor's cache.

Memory is what noise costs: a draw, its deviation and their product would be three tensors of the
output's size, each written and read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qnad_art.sampling import NoiseSource

PIECE = 1 << 18
"""About as many numbers of the output are worked on at a time, on a CPU."""


@dataclass(frozen=True)
class Variance:
    """Variance of a layer's output, ``scale² · (constant + values · factors)``.

    Args:
        constant: broadcasts over the output.
        values: as the output, with one channel where ``factors`` has one number an output.
        factors: broadcasts over the output; ``None`` for 1.
        scale: broadcasts over the output.
    """

    constant: Tensor
    values: Tensor
    factors: Tensor | None
    scale: Tensor

    def full(self, shape: torch.Size) -> Tensor:
        """In units of ``scale²``, at every output."""
        if self.factors is None:
            return (self.values + self.constant).expand(shape).clone()
        return torch.addcmul(self.constant, self.values, self.factors).expand(shape).clone()

    def disturb(self, mean: Tensor, shift: Tensor | None, source: NoiseSource) -> Tensor:
        """A draw around ``mean + shift``; ``mean`` is overwritten."""
        if shift is not None and shift.requires_grad:  # as in tuning
            mean, shift = mean.add_(shift), None
        others = (self.constant, self.scale, self.factors)
        if mean.is_cuda or any(part is not None and part.requires_grad for part in others):
            deviation = self.full(mean.shape).clamp_min(_tiny(self.constant)).sqrt()
            noise = source.normal_like(deviation).mul(deviation).mul(self.scale)
            return (mean if shift is None else mean + shift) + noise.to(mean.dtype)
        result: Tensor = _Disturb.apply(mean, self.values, self, shift, source)
        return result


def sum_of_squares(x: Tensor, scale: float, axis: int) -> Tensor:
    """Σ (x / scale)² over ``axis``, which stays with size 1."""
    result: Tensor = _SumOfSquares.apply(x, scale, axis)
    return result


class _Disturb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, values: Tensor, variance: Variance, shift: Any, source: Any
    ) -> Tensor:
        tracked = ctx.needs_input_grad[1]
        kept = torch.empty_like(mean) if tracked else None
        places = list(_pieces(mean))
        for place, noise in zip(places, source.draws([mean[p].shape for p in places]), strict=True):
            if kept is not None:
                kept[place] = noise
            part = mean[place]
            deviation = _deviation(variance, _at(values, place))
            noise = noise.to(deviation.dtype).mul_(deviation)
            if shift is not None:
                part.add_(shift)
            if part.dtype == noise.dtype:
                part.addcmul_(noise, variance.scale)
            else:  # a scale rounded to bfloat16 would change the variance
                part.add_(noise.mul_(variance.scale))
        ctx.mark_dirty(mean)
        if kept is not None:
            ctx.save_for_backward(kept, values)
            ctx.variance = variance
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        if not ctx.needs_input_grad[1]:
            return gradient, None, None, None, None
        (noise, values), variance = ctx.saved_tensors, ctx.variance
        factors = variance.scale if variance.factors is None else variance.scale * variance.factors
        parts = []
        for place in _pieces(noise):
            part = _at(values, place)
            # dy/dV = noise · scale / (2 √V), summed where V has one channel.
            slope = gradient[place] * noise[place] * factors / _deviation(variance, part)
            parts.append((slope / 2).sum_to_size(part.shape).to(values.dtype))
        moved = torch.cat(parts) if parts else torch.zeros_like(values)
        return gradient, moved, None, None, None


def _deviation(variance: Variance, values: Tensor) -> Tensor:
    """Root of the variance in units of ``scale``, for a piece of its ``values``."""
    if variance.factors is None:
        square = values + variance.constant
    else:
        square = torch.addcmul(variance.constant, values, variance.factors)
    if torch.is_grad_enabled():
        return square.clamp_min(_tiny(square)).sqrt()
    return square.clamp_min_(_tiny(square)).sqrt_()


class _SumOfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, axis: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        kind = torch.promote_types(x.dtype, torch.float32)
        parts = [x[place].to(kind).square().sum(axis, keepdim=True) for place in _pieces(x)]
        return (torch.cat(parts) if parts else x.sum(axis, keepdim=True)).mul_(1 / scale**2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (gradients[0] * (2 / ctx.scale**2)).to(x.dtype) * x, None, None


def _pieces(tensor: Tensor) -> Iterator[slice]:
    """Ranges of the first dimension, of about :data:`PIECE` numbers each."""
    count = len(tensor)
    step = count if tensor.is_cuda else max(1, PIECE * count // max(tensor.numel(), 1))
    for start in range(0, count, max(step, 1)):
        yield slice(start, min(start + step, count))


def _at(values: Tensor, place: slice) -> Tensor:
    return values[place] if len(values) > 1 else values


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny
