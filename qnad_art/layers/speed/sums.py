"""The sums of :mod:`qnad_art.layers.product_sums` in less time.

Constants are kept, terms are added in place, the variance has the form of
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
from qnad_art.layers.speed.accelerated import is_tracing
from qnad_art.layers.speed.convolution import convolved
from qnad_art.layers.speed.shot_noise import Variance, disturb_in_place, sum_of_squares
from qnad_art.layers.speed.variance import Reduced

Constants = dict[tuple[str, torch.Size], tuple[Tensor, Tensor]]
"""Constant terms, each with the kernel that gave it, by name and size of the images."""


@dataclass(frozen=True)
class FastSums(ProductSums):
    """The same sums in less time; ``constants`` keeps their constant terms."""

    constants: Constants = field(default_factory=dict)

    def draw(self, x: Tensor, source: NoiseSource) -> Tensor:
        """The same draws as :meth:`ProductSums.draw`."""
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
        return self._variance(activations, kernels).square()

    def _mean_and_shift(self, activations: Activations) -> tuple[Tensor, Tensor | None]:
        """The mean, and a constant that must still be added to it."""
        x, cos, _ = activations
        constant = self._kept_constant("mean", self.kernels.constant, self.bias, x)
        everywhere = self._as_bias(constant)  # A bias costs no time.
        mean = convolved(self.linear_map, x, self.kernels.x, everywhere)
        if cos is not None and self.kernels.cos is not None:
            mean = mean.add_(convolved(self.linear_map, cos, self.kernels.cos))
        # In another type than the mean's, torch would make two copies of the mean to add it.
        return mean, constant.to(mean.dtype) if everywhere is None else None

    def _variance(self, activations: Activations, kernels: VarianceKernels) -> Variance:
        constant = self._kept_constant("variance", kernels.constant, kernels.bias, activations.x)
        scale = self.linear_map.per_output(kernels.scale)
        values: Tensor | None = None
        for values_of, kernel in self.variance_terms(activations, kernels):
            term = convolved(self.linear_map, values_of, kernel)
            values = term if values is None else values.add_(term)
        if not isinstance(kernels, Reduced):
            return Variance(constant, scale.new_zeros(1) if values is None else values, None, scale)
        reduced = self._patterns(activations.x, kernels)
        if kernels.mixing.dim() > 1:
            pointwise = (functional.linear, functional.conv1d, functional.conv2d)
            mixed = pointwise[kernels.mixing.dim() - 2](reduced, kernels.mixing)
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

    def _kept_constant(self, name: str, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """A constant term; one number per output if it is the same at all positions."""
        tracked = kernel.requires_grad or (
            bias is not None and bias.requires_grad and torch.is_grad_enabled()
        )
        if tracked or is_tracing():
            return self.constant(kernel, bias, x)
        kept = self.constants.get((name, x.shape[-2:]))
        # Another thread may have replaced it, so check that it comes from this kernel.
        if kept is None or kept[0] is not kernel:
            with torch.inference_mode(False), torch.no_grad():
                value = self.constant(kernel, bias, x)
                first = value.flatten(1)[:, 0] if value.dim() > 1 else value
                if value.dim() > 1 and bool((value.flatten(1) == first[:, None]).all()):
                    value = self.linear_map.per_output(first)
            kept = self.constants[name, x.shape[-2:]] = (kernel, value)
        return kept[1]

    def _as_bias(self, constant: Tensor) -> Tensor | None:
        """``constant`` as the bias of the linear map, if it is the same at all positions."""
        if constant.numel() != self.linear_map.outputs:
            return None
        return constant.flatten().to(self.kernels.x.dtype)
