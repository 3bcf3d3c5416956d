"""The common part of all quantum-executed layers: how their products run, and what they compute.

A layer holds its linear map (:mod:`~qnad_art.layers.linear_map`). A pass compiles weights, sites
and pair counts into kernels (:mod:`~qnad_art.layers.kernels`) and computes sums with them
(:mod:`~qnad_art.layers.product_sums`). The layers of a network are
:class:`~qnad_art.layers.speed.layer.FastLayer`, which do the same in less time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import CalibrationError, InvalidInputError
from qnad_art.layers.kernels import Execution, Kernels, Products, compile_kernels, with_bias
from qnad_art.layers.linear_map import LinearMap, Windows, linear_map_of
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.product_sums import ProductSums


class QuantumLayer(nn.Module):
    """A layer whose every product is a noisy quantum circuit.

    Subclasses are also subclasses of the plain layer, so parameters, ``state_dict`` keys, hooks and
    ``repr`` stay those of the converted network.
    """

    weight: Any
    bias: Any
    linear_map: LinearMap
    execution: Execution
    noise: NoiseSource
    engine: Callable[[Any, Tensor], Tensor] | None
    """``engine(layer, x)`` runs the layer instead of the compiled kernels, unless ``None``."""
    unsaturated: bool
    """Whether gradients pass through saturated activations (BPDA); outputs do not change."""
    input_scale: float | None
    """Activation scale s_x; ``None`` before calibration."""
    input_spread: float | None
    """Standard deviation of x̂² within a channel, over the calibration data."""
    input_squares: tuple[float, ...] | None
    """Mean of x̂² of every input channel, over the calibration data."""
    clipped: float
    """Fraction of the calibration data's activations beyond the scale."""
    shot_share: tuple[float, ...] | None
    """Shots per product of each output over those of the module; ``None`` for 1 everywhere."""
    tuned: Kernels | None
    """Kernels of a layer whose crosstalk is being optimised, see :meth:`tune`."""
    site: Tensor
    pairs: Tensor

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """Initialise a plain layer that has just been given this class."""
        assert isinstance(self, (nn.Linear, nn.Conv1d, nn.Conv2d))
        self.linear_map = linear_map_of(self)
        self.execution = execution
        self.noise = noise
        self.engine = None
        self.unsaturated = False
        self.input_scale = None
        self.input_spread = None
        self.input_squares = None
        self.clipped = 0.0
        self.shot_share = None
        self.tuned = None
        shape, device = self.product_shape, self.weight.device
        for name, kind in (("site", torch.int16), ("pairs", torch.int8)):
            zero = torch.zeros((), dtype=kind, device=device)
            self.register_buffer(name, zero.expand(shape), False)

    def assign(self, site: Tensor, pairs: Tensor) -> None:
        """Place every product on a site (index into the table) with a signed pair count."""
        if not site.shape == pairs.shape == self.product_shape:
            raise InvalidInputError(
                f"site {tuple(site.shape)} and pairs {tuple(pairs.shape)} must have "
                f"the shape {self.product_shape} of the layer's products."
            )
        self.site = site.to(self.weight.device, torch.int16)
        self.pairs = pairs.to(self.weight.device, torch.int8)
        self.invalidate()

    def forward(self, x: Tensor) -> Tensor:
        """Noisy layer output; shapes as in the plain layer."""
        return self.compiled(x) if self.engine is None else self.engine(self, x)

    def classical(self, x: Tensor) -> Tensor:
        """The output of the plain layer."""
        result: Tensor = super().forward(x)
        return result

    def compiled(self, x: Tensor, kernels: Kernels | None = None) -> Tensor:
        """Output of the compiled kernels: expectation, plus Gaussian shot noise with shots.

        ``kernels`` replace those of :meth:`kernels` if given.
        """
        batch = self.linear_map.batched(x)
        drawn = self.sums(self.kernels() if kernels is None else kernels).draw(batch, self.noise)
        return drawn if batch is x else drawn[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean of the output, and variance in units of :meth:`noise_scale` squared.

        The variance is ``None`` without shots.
        """
        batch = self.linear_map.batched(x)
        mean, variance = self.sums(self.kernels()).moments(batch)
        if batch is x:
            return mean, variance
        return mean[0], None if variance is None else variance[0]

    def disturbed(self, mean: Tensor, variance: Tensor, source: NoiseSource) -> Tensor:
        """A draw from the moments that :meth:`moments` returned."""
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return mean + source.normal_like(mean) * deviation * self.noise_scale()

    def noise_scale(self) -> Tensor:
        """Unit of the standard deviation, s_x s_w / (g √S); broadcasts over the output."""
        variance = self.kernels().variance
        if variance is None:
            raise CalibrationError("There is no shot noise without shots: set shots (say 1024).")
        return self.linear_map.per_output(variance.scale)

    def sums(self, kernels: Kernels) -> ProductSums:
        """The sums over this layer's products with ``kernels``."""
        return ProductSums(
            self.linear_map,
            kernels,
            bias=self.bias if kernels.bias is None else kernels.bias,
            scale=self.scale,
            unsaturated=self.unsaturated,
            constant_variance=self.tuned is not None,
        )

    def kernels(self) -> Kernels:
        """The compiled kernels, a differentiable function of weight and bias."""
        if self.tuned is not None:
            return self.tuned
        return compile_kernels(self.weight, self.quantum_bias, self.how_products_run())

    def tune(self, wanted: Tensor | None) -> None:
        """Run with kernels that are differentiable with respect to ``wanted``; ``None`` ends that.

        See :func:`~.kernels.compile_kernels`. The kernels are compiled once, here. Gradients treat
        the variance as a constant, because its gradient is small and expensive.
        """
        self.tuned = None
        if wanted is not None:
            # The layer's own weights are fixed in tuning and need no graph.
            weight, bias = self.weight.detach(), self.quantum_bias
            bias = None if bias is None else bias.detach()
            tuned = compile_kernels(weight, bias, self.how_products_run(), wanted=wanted)
            variance = None if tuned.variance is None else tuned.variance.map(Tensor.detach)
            self.tuned = replace(tuned, variance=variance)

    def invalidate(self) -> None:
        """Forget the kernels, after changes of weights or placement that cannot be noticed."""

    def how_products_run(self) -> Products:
        """Where and how the layer's products run."""
        shots = None
        if self.shot_share is not None and self.execution.shots is not None:
            share = torch.tensor(self.shot_share, device=self.weight.device)
            shots = (share * self.execution.shots).round().clamp_min(1)
        return Products(self.site, self.pairs, self.execution, self.scale, shots)

    @property
    def scale(self) -> float:
        """The activation scale s_x."""
        if self.input_scale is None:
            raise CalibrationError(
                "This layer has no activation scale yet: call calibrate(x) on the "
                "quantum-executed module with a few hundred training images."
            )
        return self.input_scale

    @property
    def quantum_bias(self) -> Tensor | None:
        """The bias (out,) if it runs as products, else ``None``."""
        bias: Tensor | None = self.bias if self.execution.bias == "quantum" else None
        return bias

    @property
    def product_shape(self) -> tuple[int, ...]:
        """Shape of ``site`` and ``pairs``: the weight's, or (out, J + 1) with a quantum bias."""
        shape = tuple(self.weight.shape)
        return shape if self.quantum_bias is None else (shape[0], math.prod(shape[1:]) + 1)

    def product_weights(self) -> Tensor:
        """The weight of every product, of shape :attr:`product_shape`."""
        rows = with_bias(self.weight, self.quantum_bias, self.bias_input)
        return rows.view(self.product_shape)

    @property
    def bias_input(self) -> float:
        """The input of a bias that runs as a product: s_x, or 1 before calibration."""
        return 1.0 if self.input_scale is None else self.input_scale

    def products(self, x: Tensor) -> int:
        """Number of products (circuits) for a batch ``x`` of inputs."""
        batch = self.linear_map.batched(x)
        windows, executed, _ = self.windows(batch[:1])
        outputs_a_group = self.linear_map.outputs // self.linear_map.groups
        return int(executed.sum()) * len(windows) * outputs_a_group * len(batch)

    def windows(self, x: Tensor) -> Windows:
        """The activations of every product, for engines that run products one by one."""
        windows, executed, shape = self.linear_map.windows(x)
        if self.quantum_bias is not None:  # The bias has one more input, which is always s_x.
            windows = functional.pad(windows, (0, 0, 0, 1), value=self.bias_input)
            executed = functional.pad(executed, (0, 0, 0, 1), value=1)
        return Windows(windows, executed, shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tuned": None}


def quantum_layers(network: nn.Module) -> dict[str, QuantumLayer]:
    """The quantum-executed layers by name, in the order of ``named_modules``."""
    parts = network.named_modules()
    return {name: part for name, part in parts if isinstance(part, QuantumLayer)}
