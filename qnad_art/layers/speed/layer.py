"""The layers of a network: kernels are kept between passes, and their sums are the faster ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qnad_art.layers.kernels import Execution, Kernels
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.product_sums import ProductSums
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.layers.speed.accelerated import Accelerated
from qnad_art.layers.speed.kernel_cache import (
    KernelCache,
    Key,
    compile_in_blocks,
    differentiable,
    state_of,
)
from qnad_art.layers.speed.sums import Constants, FastSums
from qnad_art.layers.speed.variance import at_the_mean, best_economy, economise
from qnad_art.layers.tracing import is_tracing


class FastLayer(Accelerated, QuantumLayer):
    """A :class:`QuantumLayer` of the same results, faster."""

    postpone: Callable[[FastLayer, Tensor], Tensor] | None
    """Computes the output later, for a batch norm to fold: :mod:`~.speed.deferred`."""
    normalised: KernelCache
    """Kernels with a batch norm in them: :mod:`~.speed.batch_norm`."""
    _own: KernelCache
    _constants: Constants

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """See :meth:`QuantumLayer.execute_as`."""
        super().execute_as(execution, noise)
        self.postpone = None
        self.normalised, self._own, self._constants = KernelCache(), KernelCache(), {}

    def forward(self, x: Tensor) -> Tensor:
        """See :meth:`QuantumLayer.forward`."""
        if self.postpone is None or self.engine is not None or not self.accelerated:
            return super().forward(x)
        return self.postpone(self, x)

    def sums(self, kernels: Kernels) -> ProductSums:
        """See :meth:`QuantumLayer.sums`."""
        if not self.accelerated:
            return super().sums(kernels)
        bias, tuning = self.bias_after(kernels), self.tuned is not None
        return FastSums(
            self.linear_map,
            kernels,
            bias,
            self.scale,
            self.unsaturated,
            tuning,
            self.execution.mapping,
            self._constants,
        )

    def kernels(self) -> Kernels:
        """See :meth:`QuantumLayer.kernels`; compiled again when anything they depend on changes.

        Weights are watched by autograd's version counter; after an edit through ``weight.data``,
        which bypasses it, call :meth:`invalidate`.
        """
        # While a pass is traced, kept kernels would become constants of the trace.
        if self.tuned is not None or not self.accelerated or is_tracing():
            return super().kernels()
        kernels = self._own.get(self.settings_key(), self.in_the_key, self._compile)
        if not torch.is_grad_enabled():
            return kernels
        weight, bias = self.weight, self.quantum_bias
        if not (weight.requires_grad or (bias is not None and bias.requires_grad)):
            return kernels
        products = self.how_products_run()
        return differentiable(kernels, weight, bias, products, self.input_squares)

    def settings_key(self) -> Key:
        """Changes with anything that the kernels depend on, but for sites and pairs."""
        bias, execution, squares = self.bias, self.execution, self.input_squares
        states = state_of(self.weight), None if bias is None else state_of(bias)
        chosen = (self.input_scale, self.input_spread, self.shot_share)
        return (*states, id(execution), *chosen, id(squares))

    def in_the_key(self) -> Key:
        """The objects whose ids are in :meth:`settings_key`."""
        return self.weight, self.bias, self.execution, self.input_squares

    def tune(self, wanted: Tensor | None) -> None:
        """See :meth:`QuantumLayer.tune`; the variance is that of the mean activations."""
        super().tune(wanted)
        self._constants = {}
        if self.tuned is not None and self.accelerated:
            self.tuned = at_the_mean(
                self.tuned,
                scale_x=self.scale,
                squares=self.input_squares,
                grouped=self.linear_map.groups > 1,
            )

    def invalidate(self) -> None:
        """See :meth:`QuantumLayer.invalidate`: the kept kernels."""
        self._own.clear()
        self.normalised.clear()

    def _compile(self) -> Kernels:
        self._constants = {}
        kernels = compile_in_blocks(self.weight, self.quantum_bias, self.how_products_run())
        economy = best_economy(
            kernels,
            scale_x=self.scale,
            spread=self.input_spread,
            grouped=self.linear_map.groups > 1,
        )
        return economise(kernels, economy, self.input_squares)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_constants": {}}
