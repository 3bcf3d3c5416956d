"""Convolution and linear layers whose every product is a noisy quantum circuit.

With the response ``C`` of each product (see :mod:`qnad_art.response`), a weight becomes three
numbers ``a = C f(φ)`` and the layer's exact noisy output is

    y_o = s_x s_w,o / g_o · Σ_j [a0 + a1·sqrt(1 - x̂_j²) + a2·x̂_j] + bias

(x̂ = x / s_x, ŵ = w / s_w = sin φ, g the gain), i.e. ordinary convolutions with changed weights.
With S shots a product, the sum has the variance ``(s_x s_w / g)² Σ_j (1 - E_j²) / S``, E_j the
bracket. Terms whose coefficients vanish for a device are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import CalibrationError, InvalidInputError
from qnad_art.response import ResponseTable
from qnad_art.sampling import NoiseSource

Gain = Literal["calibrated", "raw"]
GAINS: tuple[Gain, ...] = ("calibrated", "raw")

ZERO = 1e-12
"""Coefficients of the response at or below this are numerical zeros."""
VARIANCE_TOLERANCE = 1e-3
"""Terms of the shot-noise variance that cannot exceed this fraction of it are left out."""


@dataclass(frozen=True)
class Execution:
    """How the products of a network are run.

    Args:
        table: noise of every site and pair count.
        shots: shots a product; ``None`` for the exact expectation.
        gain: ``"calibrated"`` divides each output's sum by the mean contraction of its products
            (known from the calibration circuits), ``"raw"`` does not.
    """

    table: ResponseTable
    shots: int | None = None
    gain: Gain = "calibrated"

    def __post_init__(self) -> None:
        if self.gain not in GAINS:
            raise InvalidInputError(f"gain {self.gain!r} is not one of {', '.join(GAINS)}.")
        if self.shots is not None and (not isinstance(self.shots, int) or self.shots < 1):
            raise InvalidInputError(
                f"shots is {self.shots!r}; give a whole number from 1, or None for the expectation."
            )


Kernels = dict[str, Tensor]
"""What a layer computes with, from weights, sites, pairs and scales.

``mean.x`` and ``mean.cos`` have the weight's shape and act on x and sqrt(1 - x̂²); ``mean.1`` is
the constant part, summed over input channels. With shots, ``second.x2``, ``second.x``,
``second.cos`` and ``second.xcos`` likewise give Σ E_j² up to its constant part, ``variance.1`` is
Σ_j 1 minus that constant part, and ``noise`` (one number an output) scales the deviation. Terms
that vanish for the device are absent.
"""


class QuantumLayer(nn.Module):
    """Common part of the quantum-executed layers: the compile, its cache, mean and shot noise.

    Subclasses are the plain layer's own class as well, so parameters, ``state_dict`` keys, hooks
    and ``repr`` stay those of the network that was converted.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    execution: Execution
    noise: NoiseSource
    engine: Any
    input_scale: float | None
    clipped: float
    site: Tensor
    pairs: Tensor

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """Turn a plain layer that was just given this class into a quantum-executed one."""
        self.execution = execution
        self.noise = noise
        self.engine = None
        self.input_scale = None
        self.clipped = 0.0
        shape, device = self.weight.shape, self.weight.device
        self.register_buffer("site", torch.zeros(shape, dtype=torch.int16, device=device), False)
        self.register_buffer("pairs", torch.zeros(shape, dtype=torch.int8, device=device), False)
        self._cache: tuple[Any, Kernels, Any] | None = None
        self._maps: dict[Any, Tensor] = {}

    def assign(self, site: Tensor, pairs: Tensor) -> None:
        """Place every weight on a site (index into the table) with a signed pair count."""
        if site.shape != self.weight.shape or pairs.shape != self.weight.shape:
            raise InvalidInputError(
                f"site {tuple(site.shape)} and pairs {tuple(pairs.shape)} must have "
                f"the weight's shape {tuple(self.weight.shape)}."
            )
        self.site = site.to(self.weight.device, torch.int16)
        self.pairs = pairs.to(self.weight.device, torch.int8)
        self._cache = None

    def forward(self, x: Tensor) -> Tensor:
        """Noisy layer output; shapes as in the plain layer."""
        if self.engine is not None:
            result: Tensor = self.engine(self, x)
            return result
        return self.compiled(x)

    def classical(self, x: Tensor) -> Tensor:
        """What the plain layer would have computed."""
        result: Tensor = super().forward(x)  # type: ignore[misc]
        return result

    def compiled(self, x: Tensor) -> Tensor:
        """The exact compile: expectation, plus Gaussian shot noise if ``shots`` is set."""
        if self.input_scale is None:
            raise CalibrationError(
                "This layer has no activation scale yet: call calibrate(x) on the "
                "quantum-executed module with a few hundred training images."
            )
        mean, variance = self.moments(x)
        if variance is None:
            return mean
        deviation = variance.sqrt() * self.noise.normal_like(mean)
        return torch.addcmul(mean, deviation, self._channels(self.kernels()["noise"]))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean of the output; variance in units of ``noise²`` (``None`` without shots)."""
        kernels = self.kernels()
        scale = self.input_scale
        assert scale is not None
        features = {"x": x.clamp(-scale, scale)}
        if any(name.endswith("cos") for name in kernels):
            # The root's slope is infinite at the ends of its range, where clamping has none.
            inside = (1 - (features["x"] / scale).square()).clamp_min(torch.finfo(x.dtype).tiny)
            features["cos"] = inside.sqrt()
            features["xcos"] = features["x"] * features["cos"]
        if "second.x2" in kernels:
            features["x2"] = features["x"].square()
        mean = self._linear_map(features["x"], kernels["mean.x"])
        if "mean.cos" in kernels:
            mean = mean + self._linear_map(features["cos"], kernels["mean.cos"])
        mean = mean + self._constant("mean.1", kernels, x)
        if "noise" not in kernels:
            return mean, None
        variance = self._constant("variance.1", kernels, x)
        for name, feature in features.items():
            if f"second.{name}" in kernels:
                variance = variance - self._linear_map(feature, kernels[f"second.{name}"])
        return mean, variance.clamp_min(0).expand_as(mean)

    def kernels(self) -> Kernels:
        """The compiled kernels, computed once and again when anything they depend on changes.

        Weights are watched by autograd's version counter; after an edit through ``weight.data``,
        which bypasses it, call :meth:`invalidate`.
        """
        weight, bias = self.weight, self.bias
        watched = [weight] if bias is None else [weight, bias]
        key = (
            *((id(t), t._version, t.data_ptr(), t.dtype, t.device) for t in watched),
            *(id(self.execution), self.input_scale),
        )
        if self._cache is None or self._cache[0] != key:
            with torch.no_grad():
                kernels = self._compile(weight)
            # Holding what the key names keeps the ids from being given to other objects.
            self._cache = (key, kernels, (*watched, self.execution))
            self._maps = {}
        kernels = self._cache[1]
        if torch.is_grad_enabled() and weight.requires_grad:
            tensors = _CompileWithGradient.apply(weight, self, *kernels.values())
            return dict(zip(kernels, tensors, strict=True))
        return kernels

    def invalidate(self) -> None:
        """Forget the compiled kernels."""
        self._cache = None

    def _compile(self, weight: Tensor) -> Kernels:
        """Kernels as a differentiable function of the weight."""
        scale_x, shots = self.input_scale, self.execution.shots
        assert scale_x is not None
        work = weight if weight.dtype == torch.float64 else weight.float()
        rows = work.flatten(1)
        scale_w = rows.abs().amax(1, keepdim=True)
        sine = rows / scale_w.clamp_min(torch.finfo(rows.dtype).tiny)
        cosine = (1 - sine.square()).clamp_min(torch.finfo(rows.dtype).tiny).sqrt()
        a0, a1, a2 = self._response(sine, cosine)
        scale_w = scale_w / self.contraction().to(rows.dtype)[:, None]
        kernels = {
            "mean.1": _sum_inputs(a0 * scale_w * scale_x, weight),
            "mean.x": a2 * scale_w,
        }
        if a1 is not None:
            kernels["mean.cos"] = a1 * scale_w * scale_x
        if shots is not None:
            a1_squared = 0 if a1 is None else a1.square()
            kernels["noise"] = scale_w.flatten() * (scale_x / shots**0.5)
            kernels["variance.1"] = _sum_inputs(1 - a0.square() - a1_squared, weight)
            second = {"x2": (a2.square() - a1_squared, 2), "x": (2 * a0 * a2, 1)}
            if a1 is not None:
                second |= {"cos": (2 * a0 * a1, 0), "xcos": (2 * a1 * a2, 1)}
            for name, (term, power) in second.items():
                if term.detach().abs().mean(1).max() > VARIANCE_TOLERANCE:
                    kernels[f"second.{name}"] = term / scale_x**power
        return {
            name: (kernel.view_as(weight) if kernel.shape == rows.shape else kernel).to(
                weight.dtype
            )
            for name, kernel in kernels.items()
        }

    def contraction(self) -> Tensor:
        """Mean contraction of each output's products, by which its sum is divided; shape (out,).

        How much a product's phase vector shrinks, whatever its weight: decoherence and readout,
        known from the calibration circuits. Ones with ``gain="raw"``.
        """
        if self.execution.gain == "raw":
            return torch.ones(len(self.weight), device=self.weight.device)
        table = torch.as_tensor(self.execution.table.values, device=self.weight.device)
        lengths = table[..., 2, 1:].square().sum(-1).sqrt().flatten()
        mean = lengths.index_select(0, self._codes()).view(len(self.weight), -1).mean(1)
        return mean.clamp_min(1e-3)

    def _codes(self) -> Tensor:
        """Position of every weight's C in the flattened table."""
        max_pairs = self.execution.table.max_pairs
        code = self.site.int() * (2 * max_pairs + 1) + self.pairs + max_pairs
        return code.flatten()

    def _response(self, sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """a = C f(φ) of every weight as (rows, J); a1 is ``None`` where it vanishes."""
        table = torch.as_tensor(self.execution.table.values).to(sine.device, sine.dtype)
        code = self._codes()

        def coefficient(values: Tensor) -> Tensor | float:
            values = values.flatten()
            used = values.abs().max() > ZERO
            return values.index_select(0, code).view_as(sine) if used else 0.0

        def row(index: int) -> Tensor | None:
            constant, cos, sin = (coefficient(table[..., index, column]) for column in range(3))
            total = constant + cos * cosine + sin * sine
            vanishes = all(isinstance(term, float) for term in (constant, cos, sin))
            return None if vanishes else total

        zero = torch.zeros_like(sine)
        a0, a1, a2 = row(0), row(1), row(2)
        return zero if a0 is None else a0, a1, zero if a2 is None else a2

    def _constant(self, name: str, kernels: Kernels, x: Tensor) -> Tensor:
        """A constant term by output position (padding is not executed); the mean's has the bias."""
        key = (name, x.shape[-2:], x.dtype)
        tracked = kernels[name].requires_grad or (
            self.bias is not None and self.bias.requires_grad and torch.is_grad_enabled()
        )
        if not tracked and key in self._maps:
            return self._maps[key]
        value = self._ones(kernels[name], x)
        if name == "mean.1" and self.bias is not None:
            value = value + self._channels(self.bias)
        if not tracked:
            self._maps[key] = value
        return value

    def products(self, x: Tensor) -> int:
        """Products (circuits) that an image costs in this layer; ``x`` is a batch of inputs."""
        _, executed, _ = self.windows(x[:1])
        return int(executed.sum()) * (self.weight.shape[0] // executed.shape[1])

    def windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The activations that meet the weights, for engines that run products one by one.

        Returns:
            Activations (N, groups, J, positions) for J weights an output; whether each is executed
            (1, groups, J, positions), zero padding is not; and the shape of the output, into which
            sums (N, out, positions) reshape.
        """
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None, "_maps": {}}

    def _linear_map(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The layer's linear map with ``kernel`` for weight and no bias."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The linear map of an all-ones input; ``kernel`` is summed over input channels."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _channels(self, values: Tensor) -> Tensor:
        """One number an output, shaped to broadcast over the output."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")


class QuantumLinear(QuantumLayer, nn.Linear):
    """:class:`torch.nn.Linear` as quantum circuits; input (…, in), output (…, out)."""

    def _linear_map(self, x: Tensor, kernel: Tensor) -> Tensor:
        return functional.linear(x, kernel)

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        return kernel

    def windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`QuantumLayer.windows`; leading dimensions of ``x`` are images."""
        windows = x.reshape(-1, 1, x.shape[-1], 1)
        return windows, torch.ones_like(windows[:1]), (*x.shape[:-1], self.out_features)

    def _channels(self, values: Tensor) -> Tensor:
        return values


class _QuantumConv(QuantumLayer):
    """Part common to the convolutions: padding that exists is executed, zero padding is not."""

    stride: Any
    padding: Any
    dilation: Any
    padding_mode: str
    groups: int
    _reversed_padding_repeated_twice: list[int]

    def _linear_map(self, x: Tensor, kernel: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(x, kernel, None)  # type: ignore[operator]
        return result

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        spatial = kernel.dim() - 2
        if self.padding_mode != "zeros" or self.padding in ("valid", (0,) * spatial):
            return self._channels(kernel.flatten(1).sum(1))
        ones = kernel.new_ones((1, 1, *x.shape[-spatial:]))
        convolve = (functional.conv1d, functional.conv2d)[spatial - 1]
        return convolve(ones, kernel, None, self.stride, self.padding, self.dilation)[0]

    def windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`QuantumLayer.windows`; ``x`` is a batch."""
        output = self._linear_map(x[:1], self.weight.detach()).shape[1:]
        ones = torch.ones_like(x[:1])
        if self.padding_mode != "zeros":
            padding = self._reversed_padding_repeated_twice
            x, ones = (functional.pad(t, padding, mode=self.padding_mode) for t in (x, ones))
        else:
            padding = self._zero_padding()
            x, ones = functional.pad(x, padding), functional.pad(ones, padding)

        def unfold(values: Tensor) -> Tensor:
            for axis, size in enumerate(self.weight.shape[2:]):
                values = _sliding(values, 2 + axis, size, self.stride[axis], self.dilation[axis])
            spatial = len(output) - 1
            values = values.movedim(tuple(range(2, 2 + spatial)), tuple(range(-spatial, 0)))
            return values.reshape(len(values), self.groups, -1, output[1:].numel())

        return unfold(x), unfold(ones), (-1, *output)

    def _zero_padding(self) -> list[int]:
        """Padding as :func:`torch.nn.functional.pad` takes it (last axis first)."""
        if not isinstance(self.padding, str):
            return [size for size in reversed(self.padding) for _ in range(2)]
        if self.padding == "valid":
            return [0] * (2 * (self.weight.dim() - 2))
        return list(self._reversed_padding_repeated_twice)

    def _channels(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (self.weight.dim() - 2))


class QuantumConv1d(_QuantumConv, nn.Conv1d):
    """:class:`torch.nn.Conv1d` as quantum circuits; input (N, C, L) or (C, L)."""


class QuantumConv2d(_QuantumConv, nn.Conv2d):
    """:class:`torch.nn.Conv2d` as quantum circuits; input (N, C, H, W) or (C, H, W)."""


QUANTUM_CLASSES: dict[type[nn.Module], type[QuantumLayer]] = {
    nn.Linear: QuantumLinear,
    nn.Conv1d: QuantumConv1d,
    nn.Conv2d: QuantumConv2d,
}
"""Plain layer classes and what they become."""


class _CompileWithGradient(torch.autograd.Function):
    """Cached kernels in the forward pass; the compile is done again only if a gradient is asked."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: QuantumLayer, *kernels: Tensor) -> Any:
        ctx.save_for_backward(weight)
        ctx.layer = layer
        return tuple(kernel.detach() for kernel in kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        (weight,) = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return (None, None, *(None for _ in gradients))
        with torch.enable_grad():
            weight = weight.detach().requires_grad_()
            kernels = ctx.layer._compile(weight)
            used = [
                (kernel, gradient)
                for kernel, gradient in zip(kernels.values(), gradients, strict=True)
                if gradient is not None and kernel.requires_grad
            ]
            outputs, given = zip(*used, strict=True)
            (result,) = torch.autograd.grad(outputs, weight, given)
        return (result, None, *(None for _ in gradients))


def _sliding(values: Tensor, axis: int, size: int, stride: int, dilation: int) -> Tensor:
    """Windows along ``axis``; the kernel position becomes the last dimension."""
    windows = values.unfold(axis, dilation * (size - 1) + 1, stride)
    return windows[..., ::dilation]


def _sum_inputs(terms: Tensor, weight: Tensor) -> Tensor:
    """Sum (rows, J) over input channels: (out,) for linear, (out, 1, *kernel) for convolutions."""
    summed = terms.view_as(weight).sum(1)
    return summed if weight.dim() == 2 else summed.unsqueeze(1)
