"""Sums of products, from compiled kernels: their mean, the variance of their shot noise, and draws.

This is the formula of :mod:`qnad_art.layers.kernels`, word for word.
:mod:`qnad_art.layers.speed.sums` computes the same in less time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from qnad_art.layers.kernels import Kernels, VarianceKernels
from qnad_art.layers.linear_map import LinearMap
from qnad_art.layers.noise_source import NoiseSource

ROUNDING = 16
"""Units of the last digit, in single precision or better, by which activations may be wrong."""


class Activations(NamedTuple):
    """Inputs of the linear maps: saturated x and, if needed, sqrt(1 - x̂²) and x̂·sqrt(1 - x̂²)."""

    x: Tensor
    cos: Tensor | None = None
    xcos: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Activations:
        """The same after ``change`` of each tensor."""
        x, cos, xcos = self
        if cos is None or xcos is None:
            return Activations(change(x))
        return Activations(change(x), change(cos), change(xcos))


@dataclass(frozen=True)
class ProductSums:
    """The sums over a layer's products, for batches of inputs.

    Args:
        linear_map: the layer's linear map.
        kernels: the layer's kernels.
        bias: (out,), added to the sums: the bias itself, or the mean of its product.
        scale: activation scale s_x.
        unsaturated: let gradients pass through saturated activations (BPDA).
        constant_variance: treat the variance as a constant in gradients.
    """

    linear_map: LinearMap
    kernels: Kernels
    bias: Tensor | None
    scale: float
    unsaturated: bool = False
    constant_variance: bool = False

    def draw(self, x: Tensor, source: NoiseSource) -> Tensor:
        """The sums for ``x``: the mean, plus Gaussian shot noise with shots."""
        mean, variance = self.moments(x)
        kernels = self.kernels.variance
        if kernels is None or variance is None:
            return mean
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        noise = source.output_like(deviation) * deviation
        return mean + (noise * self.linear_map.per_output(kernels.scale)).to(mean.dtype)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean, and variance in units of its kernels' ``scale²`` (``None`` without shots)."""
        activations = self.activations(x)
        mean = self.mean(activations)
        if self.kernels.variance is None:
            return mean, None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.constant_variance):
            variance = self.variance(activations, self.kernels.variance)
        return mean, variance.expand(mean.shape)

    def mean(self, activations: Activations) -> Tensor:
        """Mean of the sums, with the bias."""
        x, cos, _ = activations
        mean = self.linear_map(x, self.kernels.x)
        if cos is not None and self.kernels.cos is not None:
            mean = mean + self.linear_map(cos, self.kernels.cos)
        return mean + self.constant(self.kernels.constant, self.bias, x).to(mean.dtype)

    def variance(self, activations: Activations, kernels: VarianceKernels) -> Tensor:
        """Variance of the sums, in units of ``kernels.scale²``; broadcasts over the output."""
        variance = self.constant(kernels.constant, kernels.bias, activations.x)
        for values, kernel in self.variance_terms(activations, kernels):
            variance = variance + self.linear_map(values, kernel)
        return variance

    def activations(self, x: Tensor) -> Activations:
        """``x``, saturated at the scale."""
        # A little wider: clamping has no gradient *at* its bounds, where white pixels lie, and the
        # largest activation differs in its last digits between batches of different sizes.
        eps = torch.finfo(x.dtype).eps
        limit = self.scale * (1 + (ROUNDING * eps if eps < 1e-6 else eps))
        # hardtanh is torch.clamp with a backward pass that is several times as fast.
        clamped = functional.hardtanh(x, -limit, limit)
        # With the gradient of the identity: the added difference is zero.
        x = clamped.detach() + (x - x.detach()) if self.unsaturated else clamped
        if self.kernels.cos is None:
            return Activations(x)
        # The root's slope is infinite at the ends of its range, where clamping has none.
        cosine = (1 - (x / self.scale).square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        return Activations(x, cosine, x / self.scale * cosine)

    def variance_terms(
        self, activations: Activations, kernels: VarianceKernels
    ) -> list[tuple[Tensor, Tensor]]:
        """The tensors on which the linear map acts for the variance, each with its kernel."""
        x, cos, xcos = activations
        x2 = None if kernels.x2 is None else (x * (1 / self.scale)).square()
        pairs = ((x, kernels.x), (cos, kernels.cos), (xcos, kernels.xcos), (x2, kernels.x2))
        return [(v, k) for v, k in pairs if v is not None and k is not None]

    def constant(self, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """A constant term by output position, because padding is not executed."""
        # Autocast would round the convolution of the ones.
        with torch.autocast(x.device.type, enabled=False):
            value = self.linear_map.of_ones(kernel, x)
        return value if bias is None else value + self.linear_map.per_output(bias)
