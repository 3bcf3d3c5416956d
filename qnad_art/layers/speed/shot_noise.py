"""Adding shot noise to a layer's output, in pieces that stay in the processor's cache.

Noise costs memory traffic: a draw, its deviation and their product would be three tensors of the
output's size, each of which would be written, read again, and returned to the system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qnad_art.layers.noise_source import NoiseSource, at, pieces


@dataclass(frozen=True)
class Variance:
    """Variance of a layer's output, ``scale² · (constant + values · factors)``.

    Args:
        constant: broadcasts over the output.
        values: shape of the output, with one channel if ``factors`` has one number per output.
        factors: broadcasts over the output; ``None`` for 1.
        scale: broadcasts over the output.
    """

    constant: Tensor
    values: Tensor
    factors: Tensor | None
    scale: Tensor

    def square(self, *, overwrite: bool = False) -> Tensor:
        """The variance in units of ``scale²``; it broadcasts over the output.

        ``overwrite`` allows the result to take the memory of ``values``.
        """
        if self.factors is not None:
            return torch.addcmul(self.constant, self.values, self.factors)
        if overwrite and self.values.dtype == self.constant.dtype and self.values.dim() > 1:
            return self.values.add_(self.constant)
        return self.values + self.constant

    def deviation(self, *, overwrite: bool = False) -> Tensor:
        """Root of :meth:`square`, in units of ``scale``."""
        square = self.square(overwrite=overwrite)
        tiny = torch.finfo(square.dtype).tiny
        if torch.is_grad_enabled():
            return square.clamp_min(tiny).sqrt()
        return square.clamp_min_(tiny).sqrt_()

    def disturb(self, mean: Tensor, shift: Tensor | None, source: NoiseSource) -> Tensor:
        """A draw around ``mean + shift``; ``mean`` is overwritten."""
        if shift is not None and shift.requires_grad:  # This happens in tuning.
            mean, shift = mean.add_(shift), None
        others = (self.constant, self.scale, self.factors)
        if mean.is_cuda or any(part is not None and part.requires_grad for part in others):
            deviation = self.deviation().expand(mean.shape)
            noise = source.output_like(deviation).mul(deviation).mul(self.scale)
            return (mean if shift is None else mean + shift) + noise.to(mean.dtype)
        result: Tensor = _Disturb.apply(mean, self.values, self, shift, source)
        return result


def disturb_in_place(
    mean: Tensor,
    shift: Tensor | None,
    variance: Callable[[slice], Variance],
    source: NoiseSource,
    kept: Tensor | None = None,
) -> Tensor:
    """Overwrite ``mean`` with a draw around ``mean + shift``, on the CPU, without gradients.

    Args:
        mean: mean of a batch.
        shift: broadcasts over an image.
        variance: returns the variance of a range of the batch. Its ``values`` are overwritten,
            unless ``kept`` is given.
        source: source of the noise.
        kept: shape of the mean; receives each draw divided by its deviation.
    """
    places = pieces(mean)
    parts = [at(mean, place) for place in places]
    draws = source.draws([part.shape for part in parts])
    for place, part, noise in zip(places, parts, draws, strict=True):
        here = variance(place)
        deviation = here.deviation(overwrite=kept is None)
        if noise.dtype != deviation.dtype:
            noise = noise.to(deviation.dtype)
        if kept is not None:
            torch.div(noise, deviation, out=at(kept, place))
        noise.mul_(deviation)
        if shift is not None:
            part.add_(shift)
        if part.dtype == noise.dtype:
            part.addcmul_(noise, here.scale)
        else:  # A scale that is rounded to bfloat16 would change the variance.
            part.add_(noise.mul_(here.scale))
    return mean


def sum_of_squares(x: Tensor, scale: float, axis: int) -> Tensor:
    """Σ (x / scale)² over ``axis``, which remains with size 1."""
    if not torch.is_grad_enabled():
        return _sum_of_squares(x, scale, axis)
    result: Tensor = _SumOfSquares.apply(x, scale, axis)
    return result


class _Disturb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        values: Tensor,
        variance: Variance,
        shift: Tensor | None,
        source: NoiseSource,
    ) -> Tensor:
        kept = None
        if ctx.needs_input_grad[1]:
            kept = torch.empty_like(mean, dtype=variance.constant.dtype)
            ctx.save_for_backward(kept, values)
            ctx.variance = variance

        def here(place: slice) -> Variance:
            return replace(variance, values=at(values, place) if len(values) > 1 else values)

        disturb_in_place(mean, shift, here, source, kept)
        ctx.mark_dirty(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        if not ctx.needs_input_grad[1]:
            return gradient, None, None, None, None
        (kept, values), variance = ctx.saved_tensors, ctx.variance
        factors = variance.scale if variance.factors is None else variance.scale * variance.factors
        if torch.is_grad_enabled():  # The slope depends on the values, too.
            deviation = replace(variance, values=values).deviation()
            kept = kept * (deviation.detach() / deviation)
        # dy/dV = noise · scale / (2 √V), summed where V has one channel.
        slope = (gradient * kept).mul_(factors / 2)
        return gradient, slope.sum_to_size(values.shape).to(values.dtype), None, None, None


class _SumOfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, axis: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return _sum_of_squares(x, scale, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (gradients[0] * (2 / ctx.scale**2)).to(x.dtype) * x, None, None


def _sum_of_squares(x: Tensor, scale: float, axis: int) -> Tensor:
    kind = torch.promote_types(x.dtype, torch.float32)
    parts = [at(x, place).to(kind).square().sum(axis, keepdim=True) for place in pieces(x)]
    total = parts[0] if len(parts) == 1 else torch.cat(parts)
    return total.mul_(1 / scale**2)
