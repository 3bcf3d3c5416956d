"""What the quantum-executed layers have in common: how their products run, and what they compute.

A layer holds its linear map (:mod:`~qnad_art.layers.linear_map`). A pass compiles weights, sites
and pair counts into kernels (:mod:`~qnad_art.layers.kernels`) and sums with these
(:mod:`~qnad_art.layers.product_sums`), as it is written here. The layers of a network are
:class:`~qnad_art.layers.speed.layer.FastLayer`, which do so in less time.
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

    Subclasses are the plain layer's own class as well, so parameters, ``state_dict`` keys, hooks
    and ``repr`` stay those of the network that was converted.
    """

    weight: Tensor
    bias: Any  # torch declares it otherwise in linear layers than in convolutions
    linear_map: LinearMap
    execution: Execution
    noise: NoiseSource
    engine: Callable[[QuantumLayer, Tensor], Tensor] | None
    """Runs the layer in place of the compiled kernels: ``engine(layer, x)``."""
    unsaturated: bool
    """Gradients pass saturated activations as if they were not (BPDA); outputs do not change."""
    input_scale: float | None
    input_spread: float | None
    """Standard deviation of x̂² over the calibration data, within a channel."""
    input_squares: tuple[float, ...] | None
    """Mean of x̂² of every input channel."""
    clipped: float
    shot_share: tuple[float, ...] | None
    """Shots of each output's products over the module's; ``None`` for 1 each."""
    tuned: Kernels | None
    """Kernels that are being tuned, see :meth:`tune`."""
    site: Tensor
    pairs: Tensor

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """Turn a plain layer that was just given this class into a quantum-executed one."""
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
        """What the plain layer would have computed."""
        result: Tensor = super().forward(x)
        return result

    def compiled(self, x: Tensor, kernels: Kernels | None = None) -> Tensor:
        """The exact compile: expectation, plus Gaussian shot noise if ``shots`` is set.

        With other ``kernels`` than :meth:`kernels`, the output that these give.
        """
        batch = self.linear_map.batched(x)
        sums = self.sums(self.kernels() if kernels is None else kernels)
        drawn = sums.draw(batch, self.noise)
        return drawn if batch is x else drawn[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean of the output; variance in units of :meth:`noise_scale` squared.

        Without shots the variance is ``None``.
        """
        batch = self.linear_map.batched(x)
        mean, variance = self.sums(self.kernels()).moments(batch)
        if batch is x:
            return mean, variance
        return mean[0], None if variance is None else variance[0]

    def disturbed(self, mean: Tensor, variance: Tensor, source: NoiseSource) -> Tensor:
        """A draw around what :meth:`moments` gave."""
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return mean + source.normal_like(mean) * deviation * self.noise_scale()

    def noise_scale(self) -> Tensor:
        """Unit of the deviation, s_x s_w / (g √S); broadcasts over the output."""
        variance = self.kernels().variance
        if variance is None:
            raise CalibrationError("There is no shot noise without shots: set shots (say 1024).")
        return self.linear_map.per_output(variance.scale)

    def sums(self, kernels: Kernels) -> ProductSums:
        """The sums over this layer's products with ``kernels``."""
        bias, tuning = self.bias_after(kernels), self.tuned is not None
        return ProductSums(
            self.linear_map,
            kernels,
            bias,
            self.scale,
            self.unsaturated,
            tuning,
            self.execution.mapping,
        )

    def bias_after(self, kernels: Kernels) -> Tensor | None:
        """What is added to the sums: the bias, or what the kernels have in its place."""
        bias: Tensor | None = self.bias if kernels.bias is None else kernels.bias
        return bias

    def kernels(self) -> Kernels:
        """The compiled kernels, a differentiable function of weight and bias."""
        if self.tuned is not None:
            return self.tuned
        return compile_kernels(self.weight, self.quantum_bias, self.how_products_run())

    def tune(self, wanted: Tensor | None) -> None:
        """Run with kernels that are differentiable with respect to ``wanted``, until ``None``.

        See :func:`~.kernels.compile_kernels`. Compiled here, once, for all passes after. In tuning
        the variance counts as a constant: its gradient is small, and not cheap.
        """
        self.tuned = None
        if wanted is not None:
            # The layer's own weights are no unknowns: they need no graph.
            weight, bias = self.weight.detach(), self.quantum_bias
            bias = None if bias is None else bias.detach()
            tuned = compile_kernels(weight, bias, self.how_products_run(), wanted=wanted)
            variance = None if tuned.variance is None else tuned.variance.map(Tensor.detach)
            self.tuned = replace(tuned, variance=variance)

    def invalidate(self) -> None:
        """Forget what was computed from the weights, after edits that cannot be noticed."""

    def how_products_run(self) -> Products:
        """What the compile takes besides weight and bias."""
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
        """The bias (out,), where it runs as products."""
        bias: Tensor | None = self.bias if self.execution.bias == "quantum" else None
        return bias

    @property
    def product_shape(self) -> tuple[int, ...]:
        """Shape of ``site`` and ``pairs``: the weight's; (out, J + 1) if the bias is a product."""
        shape = tuple(self.weight.shape)
        return shape if self.quantum_bias is None else (shape[0], math.prod(shape[1:]) + 1)

    def product_weights(self) -> Tensor:
        """The weight of every product, of :attr:`product_shape`."""
        bias = self.quantum_bias
        return self.weight if bias is None else with_bias(self.weight, bias, self.bias_unit)

    @property
    def bias_input(self) -> float:
        """The input of a bias's products: s_x, 1 before calibration."""
        return 1.0 if self.input_scale is None else self.input_scale

    @property
    def bias_unit(self) -> float:
        """What a bias's product contributes for a weight of 1: its input, times the decoding."""
        return self.bias_input * self.execution.mapping.decoding

    def products(self, x: Tensor) -> int:
        """Products (circuits) that a batch ``x`` of inputs costs in this layer."""
        batch = self.linear_map.batched(x)
        windows, executed, _ = self.windows(batch[:1])
        outputs_a_group = self.linear_map.outputs // self.linear_map.groups
        return int(executed.sum()) * len(windows) * outputs_a_group * len(batch)

    def windows(self, x: Tensor) -> Windows:
        """The activations that meet the weights, for engines that run products one by one."""
        windows, executed, shape = self.linear_map.windows(x)
        if self.quantum_bias is not None:  # one more input, which is always s_x
            windows = functional.pad(windows, (0, 0, 0, 1), value=self.bias_input)
            executed = functional.pad(executed, (0, 0, 0, 1), value=1)
        return Windows(windows, executed, shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tuned": None}


def quantum_layers(network: nn.Module) -> dict[str, QuantumLayer]:
    """The quantum-executed layers by name, in the order of ``named_modules``."""
    parts = network.named_modules()
    return {name: part for name, part in parts if isinstance(part, QuantumLayer)}
