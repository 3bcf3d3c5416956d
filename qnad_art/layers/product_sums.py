"""Sums of products, from compiled kernels: their mean, the variance of their shot noise, and draws.

With the kernels k of :mod:`qnad_art.layers.kernels`, v those of the variance, and L the layer's
linear map, a layer's output has

    mean               L(x, k.x) + L(cos, k.cos) + L(1, k.constant) + bias
    variance / scale²  L(x, v.x) + L(cos, v.cos) + L(x̂ cos, v.xcos) + L(x̂², v.x2) + L(1, v.constant)

where x = s_x sin θ, x̂ = x / s_x and cos = cos θ, and the mapping gives the angles θ of the layer's
inputs (under ``arcsine`` x is the input itself, and cos = sqrt(1 - x̂²)). This is what stands here,
term by term; :mod:`qnad_art.layers.speed.sums` computes the same in less time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from qnad_art.layers.kernels import Kernels, VarianceKernels
from qnad_art.layers.linear_map import LinearMap
from qnad_art.layers.mappings import ARCSINE, Mapping
from qnad_art.layers.noise_source import NoiseSource

ROUNDING = 16
"""Units of the last digit, in single precision or better, by which activations may be off."""


class Activations(NamedTuple):
    """What linear maps act on: x = s_x sin θ and, where needed, cos θ and sin θ cos θ."""

    x: Tensor
    cos: Tensor | None = None
    xcos: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Activations:
        """Each of them changed."""
        x, cos, xcos = self
        if cos is None or xcos is None:
            return Activations(change(x))
        return Activations(change(x), change(cos), change(xcos))


@dataclass  # one for each call: frozen, it would take four times as long to make
class ProductSums:
    """The sums over a layer's products, of a batch of inputs.

    Args:
        linear_map: which inputs meet which weights.
        kernels: of the layer.
        bias: (out,), added to the sums: the bias itself, or its product's mean.
        scale: activation scale s_x.
        unsaturated: gradients pass saturated activations as if they were not (BPDA).
        constant_variance: gradients take the variance for a constant.
        mapping: the angle that stands for an activation.
    """

    linear_map: LinearMap
    kernels: Kernels
    bias: Tensor | None
    scale: float
    unsaturated: bool = False
    constant_variance: bool = False
    mapping: Mapping = ARCSINE

    def draw(self, x: Tensor, source: NoiseSource) -> Tensor:
        """The sums of ``x``: the mean, with Gaussian shot noise where there are shots."""
        mean, variance = self.moments(x)
        kernels = self.kernels.variance
        if kernels is None or variance is None:
            return mean
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        noise = source.output_like(deviation) * deviation
        return mean + (noise * self.linear_map.per_output(kernels.scale)).to(mean.dtype)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean; variance in units of ``scale²`` of its kernels, ``None`` without shots."""
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
        """Sines and cosines of the angles of ``x``, saturated at the scale."""
        # Wider by rounding: clamping has no gradient *at* its bounds, where white pixels lie, and
        # in a batch of another size the largest activation is another one in its last digits.
        eps = torch.finfo(x.dtype).eps
        limit = self.scale * (1 + (ROUNDING * eps if eps < 1e-6 else eps))
        # The same as torch.clamp, whose backward pass takes several times as long.
        clamp = clamp_straight_through if self.unsaturated else functional.hardtanh
        inside = clamp(x, -limit, limit)
        sine = self.mapping.sine(inside, self.scale)
        if self.unsaturated and sine is not inside:
            # A mapping may be flat at the ends of its range, so that nothing would pass there.
            beyond = x - functional.hardtanh(x, -limit, limit)
            sine = sine + (beyond - beyond.detach())
        if self.kernels.cos is None:
            return Activations(sine)
        cosine = self.mapping.cosine(inside, self.scale)
        return Activations(sine, cosine, sine / self.scale * cosine)

    def variance_terms(
        self, activations: Activations, kernels: VarianceKernels
    ) -> list[tuple[Tensor, Tensor]]:
        """What the linear map acts on for the variance, each with its kernel."""
        x, cos, xcos = activations
        x2 = None if kernels.x2 is None else (x * (1 / self.scale)).square()
        pairs = ((x, kernels.x), (cos, kernels.cos), (xcos, kernels.xcos), (x2, kernels.x2))
        return [(v, k) for v, k in pairs if v is not None and k is not None]

    def constant(self, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """A constant term, by output position: padding is not executed."""
        # The convolution of the ones would be rounded to the precision of autocast.
        with torch.autocast(x.device.type, enabled=False):
            value = self.linear_map.of_ones(kernel, x)
        return value if bias is None else value + self.linear_map.per_output(bias)


def clamp_straight_through(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` clamped to [low, high], with the gradient of the identity."""
    result: Tensor = _ClampStraightThrough.apply(x, low, high)
    return result


class _ClampStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None
