"""Sums of products, from compiled kernels: their mean, and the variance of their shot noise.

Here is the formula of :mod:`qnad_art.layers.kernels`, for whatever linear map the subclasses have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import CalibrationError, InvalidInputError
from qnad_art.layers.gradients import clamp_straight_through
from qnad_art.layers.kernels import Kernels
from qnad_art.layers.shot_noise import Variance
from qnad_art.layers.tracing import is_tracing

ROUNDING = 16
"""Units of the last digit, in single precision or better, by which activations may be off."""


class ProductSums(nn.Module):
    """A layer whose outputs are sums of noisy products of inputs and weights."""

    weight: Any
    bias: Any
    unsaturated: bool
    """Gradients pass saturated activations as if they were not (BPDA); outputs do not change."""
    input_scale: float | None
    _constants: dict[Any, tuple[Tensor, Tensor, Tensor | None]]
    """Of kernels that were kept, by name and size of the input."""

    def _features(self, x: Tensor, kernels: Kernels) -> dict[str, Tensor]:
        """What the linear maps act on, of a batch of inputs."""
        scale = self._scale()
        # Wider by rounding: clamping has no gradient *at* its bounds, where white pixels lie, and
        # in a batch of another size the largest activation is another one in its last digits.
        eps = torch.finfo(x.dtype).eps
        limit = scale * (1 + (ROUNDING * eps if eps < 1e-6 else eps))
        # The same as clamp, whose backward pass takes several times as long.
        clamp = clamp_straight_through if self.unsaturated else functional.hardtanh
        x = clamp(x, -limit, limit)
        if "mean.cos" not in kernels:
            return {"x": x}
        # The root's slope is infinite at the ends of its range, where clamping has none.
        cosine = (1 - (x / scale).square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        return {"x": x, "cos": cosine, "xcos": x / scale * cosine}

    def _mean(self, features: dict[str, Tensor], kernels: Kernels) -> tuple[Tensor, Tensor | None]:
        """The mean, and a constant still to be added to it."""
        constant, everywhere = self._constant("mean.1", kernels, features["x"])
        mean = self._polynomial("mean", features, kernels, everywhere)  # bias comes at no cost
        assert mean is not None
        # Of the mean's own type: otherwise torch would add by way of two copies of the mean.
        return mean, constant.to(mean.dtype) if everywhere is None else None

    def _variance(self, features: dict[str, Tensor], kernels: Kernels) -> Variance:
        constant, _ = self._constant("variance.1", kernels, features["x"])
        if "variance.bias" in kernels:
            constant = constant + self._channels(kernels["variance.bias"])
        scale = self._channels(kernels["noise"])
        if any(name in kernels for name in ("second.x2", "shared.x2", "mixed.x2")):
            features = features | {"x2": (features["x"] * (1 / self._scale())).square()}
        values = self._polynomial("second", features, kernels)
        if "mixed.x2" in kernels:
            mixed = self._mix(self._linear_map(features["x2"], kernels["mixed.x2"]), kernels)
            values = mixed if values is None else values.add_(mixed)
        if "shared.out" not in kernels:
            return Variance(constant, scale.new_zeros(1) if values is None else values, None, scale)
        if "shared.x2" in kernels:
            shared = self._linear_map(features["x2"], kernels["shared.x2"])
        else:
            shared = self._window_sum(features["x"], self._scale())
        factors = self._channels(kernels["shared.out"])
        if values is None:
            return Variance(constant, shared, factors, scale)
        return Variance(constant, torch.addcmul(values, shared, factors), None, scale)

    def _polynomial(
        self, kind: str, features: dict[str, Tensor], kernels: Kernels, bias: Tensor | None = None
    ) -> Tensor | None:
        """Sum of the linear maps of all features that have a kernel of this kind, plus ``bias``."""
        total: Tensor | None = None
        for name, feature in features.items():
            kernel = kernels.get(f"{kind}.{name}")
            if kernel is not None:
                term = self._linear_map(feature, kernel, bias if total is None else None)
                total = term if total is None else total.add_(term)
        return total

    def _constant(self, name: str, kernels: Kernels, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """A constant term by output position (padding is not executed); the mean's has the bias.

        And, where it is the same at all positions, as the bias of a linear map.
        """
        bias = None
        if name == "mean.1":
            bias = kernels.get("mean.bias", self.bias)
        kernel = kernels[name]
        tracked = kernel.requires_grad or (
            bias is not None and bias.requires_grad and torch.is_grad_enabled()
        )
        if tracked or is_tracing():
            value = self._positions(kernel, bias, x)
            return value, self._everywhere(value)
        key = (name, x.shape[-2:])
        kept = self._constants.get(key)
        # Other threads may be at it too: what counts is whose constant it is.
        if kept is None or kept[0] is not kernel:
            with torch.inference_mode(False), torch.no_grad():
                value = self._positions(kernel, bias, x)
                first = value.flatten(1)[:, 0] if value.dim() > 1 else value
                if value.dim() > 1 and bool((value.flatten(1) == first[:, None]).all()):
                    value = self._channels(first)
                kept = self._constants[key] = (kernel, value, self._everywhere(value))
        return kept[1:]

    def _everywhere(self, constant: Tensor) -> Tensor | None:
        """``constant`` as the bias of a linear map, if it is the same at all positions."""
        if constant.numel() != self.weight.shape[0]:
            return None
        return constant.flatten().to(self.weight.dtype)

    def _positions(self, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        # The convolution of the ones would be rounded to the precision of autocast, and kept.
        with torch.autocast(x.device.type, enabled=False):
            value = self._ones(kernel, x)
        return value if bias is None else value + self._channels(bias)

    def _scale(self) -> float:
        if self.input_scale is None:
            raise CalibrationError(
                "This layer has no activation scale yet: call calibrate(x) on the "
                "quantum-executed module with a few hundred training images."
            )
        return self.input_scale

    def _batched(self, x: Tensor) -> Tensor:
        """``x`` with a batch dimension."""
        raise _not_concrete(self)

    def _linear_map(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's linear map with ``kernel`` for weight."""
        raise _not_concrete(self)

    def _mix(self, x: Tensor, kernels: Kernels) -> Tensor:
        """At each position outputs from ``x``, by the kernel ``mixed.out``."""
        raise _not_concrete(self)

    def _window_sum(self, x: Tensor, scale: float) -> Tensor:
        """Σ (x / scale)² over all inputs of an output, with one channel; batches only."""
        raise _not_concrete(self)

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The linear map of an all-ones input; ``kernel`` is summed over input channels."""
        raise _not_concrete(self)

    def _channels(self, values: Tensor) -> Tensor:
        """One number an output, shaped to broadcast over the output."""
        raise _not_concrete(self)

    def sum_outputs(self, values: Tensor) -> Tensor:
        """Sum of ``values`` (as the layer's output) over images and positions, (out,)."""
        raise _not_concrete(self)

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`~qnad_art.layers.quantum_layer.QuantumLayer.windows`, without the bias."""
        raise _not_concrete(self)


def _not_concrete(layer: ProductSums) -> InvalidInputError:
    return InvalidInputError(f"{type(layer).__name__} is not a concrete layer.")
