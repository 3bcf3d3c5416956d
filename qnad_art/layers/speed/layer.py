"""The layers of a network, which keep their kernels between passes and use the faster sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qnad_art.layers.kernels import Execution, Kernels, compile_kernels
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.product_sums import ProductSums
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.layers.speed.accelerated import Accelerated, is_tracing
from qnad_art.layers.speed.kernel_cache import (
    Compiled,
    KernelCache,
    Key,
    compile_in_blocks,
    differentiable,
    state_of,
)
from qnad_art.layers.speed.sums import Constants, FastSums
from qnad_art.layers.speed.variance import (
    at_the_mean,
    best_economy,
    negligible_x,
    reducible,
)


class FastLayer(Accelerated, QuantumLayer):
    """A :class:`QuantumLayer` with the same results in less time."""

    normalised: KernelCache[Kernels]
    """Kernels with a batch norm in them, see :mod:`~.speed.batch_norm`."""
    _own: KernelCache[Compiled]
    _constants: Constants

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """See :meth:`QuantumLayer.execute_as`."""
        super().execute_as(execution, noise)
        self.normalised, self._own, self._constants = KernelCache(), KernelCache(), {}

    def sums(self, kernels: Kernels) -> ProductSums:
        """See :meth:`QuantumLayer.sums`."""
        plain = super().sums(kernels)
        return FastSums(**vars(plain), constants=self._constants) if self.accelerated else plain

    def kernels(self) -> Kernels:
        """See :meth:`QuantumLayer.kernels`; compiled only when anything they depend on changes.

        Changes of weights are noticed by autograd's version counter. Call :meth:`invalidate` after
        an edit through ``weight.data``, which bypasses the counter.
        """
        # In a traced pass, kept kernels would become constants of the trace.
        if self.tuned is not None or not self.accelerated or is_tracing():
            return super().kernels()
        compiled = self._own.get(self.settings_key(), self.in_the_key(), self._compile)
        weight, bias = self.weight, self.quantum_bias
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained and torch.is_grad_enabled():
            return differentiable(compiled, weight, bias)
        return compiled.kernels

    def settings_key(self) -> Key:
        """A key that changes with everything on which the kernels depend, except sites and pairs.

        After those change, :meth:`invalidate` is called.
        """
        weight, bias, execution, squares = self.in_the_key()
        states = state_of(weight), None if bias is None else state_of(bias)
        chosen = (self.input_scale, self.input_spread, self.shot_share)
        return (*states, id(execution), *chosen, id(squares))

    def in_the_key(self) -> tuple[Any, ...]:
        """The objects whose ids are in :meth:`settings_key`."""
        return self.weight, self.bias, self.execution, self.input_squares

    def tune(self, wanted: Tensor | None) -> None:
        """See :meth:`QuantumLayer.tune`; the variance is that at the mean activations."""
        super().tune(wanted)
        self._constants = {}
        if not self.accelerated or self.tuned is None or self.input_squares is None:
            return
        variance = self.tuned.variance
        if variance is not None and reducible(variance, grouped=self.linear_map.groups > 1):
            if negligible_x(variance, scale_x=self.scale):
                variance = replace(variance, x=None)
            self.tuned = replace(self.tuned, variance=at_the_mean(variance, self.input_squares))

    def invalidate(self) -> None:
        """See :meth:`QuantumLayer.invalidate`."""
        self._own.clear()
        self.normalised.clear()

    def _compile(self) -> Compiled:
        self._constants = {}
        products = self.how_products_run()
        kernels = compile_in_blocks(self.weight, self.quantum_bias, products)
        if kernels.variance is None:
            return Compiled(kernels, lambda weight, bias: compile_kernels(weight, bias, products))
        economise = best_economy(
            kernels.variance,
            scale_x=self.scale,
            spread=self.input_spread,
            squares=self.input_squares,
            grouped=self.linear_map.groups > 1,
        )

        def economised(kernels: Kernels) -> Kernels:
            assert kernels.variance is not None
            return replace(kernels, variance=economise(kernels.variance))

        return Compiled(
            economised(kernels),
            lambda weight, bias: economised(compile_kernels(weight, bias, products)),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_constants": {}}
