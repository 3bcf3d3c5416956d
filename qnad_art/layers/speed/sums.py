"""The sums of :mod:`qnad_art.layers.product_sums`, faster.

Constants are kept, terms are added where they lie, the variance has the form of
:mod:`~qnad_art.layers.speed.variance`, noise is added piece by piece
(:mod:`~qnad_art.layers.speed.shot_noise`), and some convolutions have a faster gradient
(:mod:`~qnad_art.layers.speed.convolution`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from qnad_art.layers.kernels import VarianceKernels
from qnad_art.layers.linear_map import FullyConnected
from qnad_art.layers.noise_source import NoiseSource, at
from qnad_art.layers.product_sums import Activations, ProductSums
from qnad_art.layers.speed.convolution import convolved
from qnad_art.layers.speed.shot_noise import Variance, disturb_in_place, sum_of_squares
from qnad_art.layers.speed.variance import Reduced
from qnad_art.layers.tracing import is_tracing

Constants = dict[tuple[str, torch.Size], tuple[Tensor, Tensor, Tensor | None]]
"""By name and size of images: a kernel, its constant term, and that as the bias of a linear map."""


@dataclass
class FastSums(ProductSums):
    """The same sums in less time; ``constants`` is where their constant terms are kept."""

    constants: Constants = field(default_factory=dict)

    def draw(self, x: Tensor, source: NoiseSource) -> Tensor:
        """See :meth:`ProductSums.draw`; the same draws."""
        activations, kernels = self.activations(x), self.kernels.variance
        mean, shift = self._mean_and_shift(activations)
        if kernels is None:
            return mean if shift is None else mean.add_(shift)
        if torch.is_grad_enabled() or mean.is_cuda:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.constant_variance):
                variance = self._variance(activations, kernels)
            return variance.disturb(mean, shift, source)

        def here(place: slice) -> Variance:
            return self._variance(activations.map(lambda values: at(values, place)), kernels)

        return disturb_in_place(mean, shift, here, source)

    def mean(self, activations: Activations) -> Tensor:
        """See :meth:`ProductSums.mean`."""
        mean, shift = self._mean_and_shift(activations)
        return mean if shift is None else mean.add_(shift)

    def variance(self, activations: Activations, kernels: VarianceKernels) -> Tensor:
        """See :meth:`ProductSums.variance`."""
        return self._variance(activations, kernels).whole()

    def _mean_and_shift(self, activations: Activations) -> tuple[Tensor, Tensor | None]:
        """The mean, and a constant still to be added to it."""
        x, cos, _ = activations
        constant, everywhere = self._kept_constant("mean", self.kernels.constant, self.bias, x)
        mean = convolved(self.linear_map, x, self.kernels.x, everywhere)  # bias comes at no cost
        if cos is not None and self.kernels.cos is not None:
            mean = mean.add_(convolved(self.linear_map, cos, self.kernels.cos))
        # Of the mean's own type: otherwise torch would add by way of two copies of the mean.
        return mean, constant.to(mean.dtype) if everywhere is None else None

    def _variance(self, activations: Activations, kernels: VarianceKernels) -> Variance:
        constant, _ = self._kept_constant("variance", kernels.constant, kernels.bias, activations.x)
        scale = self.linear_map.per_output(kernels.scale)
        values: Tensor | None = None
        for values_of, kernel in self.variance_terms(activations, kernels):
            term = convolved(self.linear_map, values_of, kernel)
            values = term if values is None else values.add_(term)
        if not isinstance(kernels, Reduced):
            return Variance(constant, scale.new_zeros(1) if values is None else values, None, scale)
        reduced = self._patterns(activations.x, kernels)
        if kernels.mixing.dim() > 1:
            mixed = _mixed(reduced, kernels.mixing)
            return Variance(constant, mixed if values is None else values.add_(mixed), None, scale)
        factors = self.linear_map.per_output(kernels.mixing)
        if values is None:
            return Variance(constant, reduced, factors, scale)
        return Variance(constant, torch.addcmul(values, reduced, factors), None, scale)

    def _patterns(self, x: Tensor, kernels: Reduced) -> Tensor:
        """x̂² under the patterns of a reduced variance."""
        if kernels.patterns is not None:
            return convolved(self.linear_map, (x * (1 / self.scale)).square(), kernels.patterns)
        if isinstance(self.linear_map, FullyConnected):
            return sum_of_squares(x, self.scale, -1)
        squares = sum_of_squares(x, self.scale, 1)
        ones = squares.new_ones((1, 1, *self.linear_map.kernel_size))
        return convolved(self.linear_map, squares, ones)

    def _kept_constant(
        self, name: str, kernel: Tensor, bias: Tensor | None, x: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """A constant term, and the same as the bias of a linear map, where all positions agree."""
        key = (name, x.shape[-2:])
        kept = self.constants.get(key)
        trained = bias is not None and bias.requires_grad and torch.is_grad_enabled()
        # Other threads may be at it too: what counts is whose constant it is.
        if kept is not None and kept[0] is kernel and not trained:
            return kept[1:]
        if trained or kernel.requires_grad or is_tracing():
            value = self.constant(kernel, bias, x)
            return value, self._as_bias(value)
        with torch.inference_mode(False), torch.no_grad():
            value = self.constant(kernel, bias, x)
            first = value.flatten(1)[:, 0] if value.dim() > 1 else value
            if value.dim() > 1 and bool((value.flatten(1) == first[:, None]).all()):
                value = self.linear_map.per_output(first)
            bias = self._as_bias(value)
        self.constants[key] = (kernel, value, bias)
        return value, bias

    def _as_bias(self, constant: Tensor) -> Tensor | None:
        if constant.numel() != self.linear_map.outputs:
            return None
        return constant.flatten().to(self.kernels.x.dtype)


def _mixed(values: Tensor, mixing: Tensor) -> Tensor:
    """At each position outputs from patterns."""
    pointwise = (functional.linear, functional.conv1d, functional.conv2d)[mixing.dim() - 2]
    return pointwise(values, mixing)
