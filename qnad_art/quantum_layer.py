"""What the quantum-executed layers have in common: the compile's cache, mean and shot noise.

A layer computes with kernels from :mod:`qnad_art.kernels`, its plain linear map, and shot noise;
:mod:`qnad_art.layers` says for convolutions and linear layers what the linear map is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import CalibrationError, InvalidInputError
from qnad_art.gradients import clamp_straight_through, kernels_of_weight
from qnad_art.kernels import Execution, Kernels, compile_in_blocks, compile_kernels, with_bias
from qnad_art.sampling import NoiseSource
from qnad_art.shot_noise import Variance, at, disturb_in_place
from qnad_art.variance import Form, at_the_mean, cheapest, drop_negligible, take


class QuantumLayer(nn.Module):
    """A layer whose every product is a noisy quantum circuit.

    Subclasses are the plain layer's own class as well, so parameters, ``state_dict`` keys, hooks
    and ``repr`` stay those of the network that was converted.
    """

    weight: Any
    bias: Any
    execution: Execution
    noise: NoiseSource
    engine: Any
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
    site: Tensor
    pairs: Tensor

    def execute_as(self, execution: Execution, noise: NoiseSource) -> None:
        """Turn a plain layer that was just given this class into a quantum-executed one."""
        self.execution = execution
        self.noise = noise
        self.engine = None
        self.unsaturated = False
        self.input_scale = None
        self.input_spread = None
        self.input_squares = None
        self.clipped = 0.0
        self.shot_share = None
        shape, device = self.product_shape, self.weight.device
        self.register_buffer("site", torch.zeros(shape, dtype=torch.int16, device=device), False)
        self.register_buffer("pairs", torch.zeros(shape, dtype=torch.int8, device=device), False)
        self._cache: tuple[Any, Kernels, Any] | None = None
        self._tuned: Kernels | None = None
        self._constants: dict[Any, tuple[Tensor, Tensor, Tensor | None]] = {}

    def assign(self, site: Tensor, pairs: Tensor) -> None:
        """Place every product on a site (index into the table) with a signed pair count."""
        if not site.shape == pairs.shape == self.product_shape:
            raise InvalidInputError(
                f"site {tuple(site.shape)} and pairs {tuple(pairs.shape)} must have "
                f"the shape {self.product_shape} of the layer's products."
            )
        self.site = site.to(self.weight.device, torch.int16)
        self.pairs = pairs.to(self.weight.device, torch.int8)
        self._cache = None

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
        if bias is None:
            weight: Tensor = self.weight
            return weight
        return with_bias(self.weight, bias, self.bias_input)

    @property
    def bias_input(self) -> float:
        """The input that a bias run as products is the weight of: s_x, 1 before calibration."""
        return 1.0 if self.input_scale is None else self.input_scale

    def forward(self, x: Tensor) -> Tensor:
        """Noisy layer output; shapes as in the plain layer."""
        if self.engine is not None:
            result: Tensor = self.engine(self, x)
            return result
        return self.compiled(x)

    def classical(self, x: Tensor) -> Tensor:
        """What the plain layer would have computed."""
        result: Tensor = super().forward(x)
        return result

    def compiled(self, x: Tensor) -> Tensor:
        """The exact compile: expectation, plus Gaussian shot noise if ``shots`` is set."""
        batch, kernels = self._batched(x), self.kernels()
        features = self._features(batch, kernels)
        mean, shift = self._mean(features, kernels)
        if "noise" in kernels:
            mean = self._disturb(mean, shift, features, kernels)
        elif shift is not None:
            mean = mean.add_(shift)
        return mean if batch is x else mean[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean of the output; variance in units of ``noise²`` (``None`` without shots)."""
        batch, kernels = self._batched(x), self.kernels()
        features = self._features(batch, kernels)
        mean, shift = self._mean(features, kernels)
        mean = mean if shift is None else mean.add_(shift)
        variance = None
        if "noise" in kernels:
            variance = self._variance(features, kernels).full(mean.shape)
        if batch is x:
            return mean, variance
        return mean[0], None if variance is None else variance[0]

    def disturbed(self, mean: Tensor, variance: Tensor, source: NoiseSource) -> Tensor:
        """A draw around what :meth:`moments` gave."""
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        scale = self._channels(self.kernels()["noise"])
        return mean + source.normal_like(mean) * deviation * scale

    def _features(self, x: Tensor, kernels: Kernels) -> dict[str, Tensor]:
        """What the linear maps act on, of a batch of inputs."""
        scale = self._scale()
        # One ulp wider: clamping has no gradient *at* its bounds, where white pixels lie.
        limit = scale * (1 + torch.finfo(x.dtype).eps)
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
        return mean, constant if everywhere is None else None

    def _disturb(
        self, mean: Tensor, shift: Tensor | None, features: dict[str, Tensor], kernels: Kernels
    ) -> Tensor:
        """A draw around ``mean + shift``; ``mean`` is overwritten."""
        if torch.is_grad_enabled() or mean.is_cuda:
            # In tuning the variance counts as constant: its gradient is small, and not cheap.
            with torch.set_grad_enabled(torch.is_grad_enabled() and self._tuned is None):
                variance = self._variance(features, kernels)
            return variance.disturb(mean, shift, self.noise)

        def here(place: slice) -> Variance:
            return self._variance({name: at(f, place) for name, f in features.items()}, kernels)

        return disturb_in_place(mean, shift, here, self.noise)

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

    def kernels(self) -> Kernels:
        """The compiled kernels, computed once and again when anything they depend on changes.

        Weights are watched by autograd's version counter; after an edit through ``weight.data``,
        which bypasses it, call :meth:`invalidate`.
        """
        weight, bias = self.weight, self.bias
        if self._tuned is not None:
            return self._tuned
        if is_tracing():  # kept kernels would be constants of the trace
            return compile_kernels(weight, self.site, self.pairs, **self._settings())
        watched = [weight] if bias is None else [weight, bias]
        chosen = (id(self.execution), self.input_scale, self.input_spread, self.shot_share)
        key = (*map(_state, watched), *chosen, id(self.input_squares))
        cache = self._cache
        if cache is None or cache[0] != key:
            # Holding what the key names keeps its ids from being given to other objects.
            with torch.inference_mode(False):  # its tensors could not be used for gradients later
                cache = self._cache = (
                    key,
                    self._compile(),
                    (*watched, self.execution, self.input_squares),
                )
            self._constants = {}
        kernels = cache[1]
        bias = self.quantum_bias
        trained = any(tensor is not None and tensor.requires_grad for tensor in (weight, bias))
        if torch.is_grad_enabled() and trained:
            settings = {**self._settings(), "squares": self.input_squares}
            bias = settings.pop("bias")
            return kernels_of_weight(kernels, weight, bias, self.site, self.pairs, **settings)
        return kernels

    def tune(self, wanted: Tensor | None) -> None:
        """Run with kernels that are differentiable with respect to ``wanted``, until ``None``.

        See :func:`~qnad_art.kernels.compile_kernels`. Compiled here, once, for all passes after.
        """
        self._tuned, self._constants = None, {}
        if wanted is not None:
            # The layer's own weights are no unknowns: they need no graph.
            settings = self._settings()
            bias = settings.pop("bias")
            settings |= {"bias": None if bias is None else bias.detach(), "wanted": wanted}
            kernels = compile_kernels(self.weight.detach(), self.site, self.pairs, **settings)
            # Noise that is right on average will do here, and as a constant: both cost less.
            if self.input_squares is not None and self._reducible(kernels):
                kernels = drop_negligible(kernels, scale_x=self._scale())
                kernels = at_the_mean(kernels, self.input_squares)
            self._tuned = {n: k if n.startswith("mean") else k.detach() for n, k in kernels.items()}

    def invalidate(self) -> None:
        """Forget the compiled kernels."""
        self._cache = None

    def products(self, x: Tensor) -> int:
        """Products (circuits) that an image costs in this layer; ``x`` is a batch of inputs."""
        windows, executed, _ = self.windows(self._batched(x)[:1])
        outputs_a_group: int = self.weight.shape[0] // executed.shape[1]
        return int(executed.sum()) * len(windows) * outputs_a_group

    def windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The activations that meet the weights, for engines that run products one by one.

        Returns:
            Activations (N, groups, J, positions) for J products an output; whether each is executed
            (1, groups, J, positions), zero padding is not; and the shape of the output, into which
            sums (N, out, positions) reshape.
        """
        windows, executed, shape = self._windows(x)
        if self.quantum_bias is not None:  # one more input, which is always s_x
            windows = functional.pad(windows, (0, 0, 0, 1), value=self.bias_input)
            executed = functional.pad(executed, (0, 0, 0, 1), value=1)
        return windows, executed, shape

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`windows`, without the bias."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def __getstate__(self) -> dict[str, Any]:
        forgotten: dict[str, Any] = {
            "_cache": None,
            "_tuned": None,
            "_constants": {},
        }
        return {**self.__dict__, **forgotten}

    def _compile(self) -> Kernels:
        kernels = compile_in_blocks(self.weight, self.site, self.pairs, **self._settings())
        return self._economise(kernels, self._form(kernels))

    def _form(self, kernels: Kernels) -> Form:
        """In which form the calibration data allow the variance."""
        if self.input_spread is None or not self._reducible(kernels):
            return "full"
        return cheapest(kernels, spread=self.input_spread)

    def _reducible(self, kernels: Kernels) -> bool:
        """Whether the variance has other forms than the full one."""
        grouped = getattr(self, "groups", 1) > 1
        return not grouped and "second.x2" in kernels and "second.cos" not in kernels

    def _economise(self, kernels: Kernels, form: Form) -> Kernels:
        """The variance in this form, without what cannot matter."""
        if self.execution.shots is None:
            return kernels
        kernels = drop_negligible(kernels, scale_x=self._scale())
        return take(kernels, form, squares=self.input_squares)

    def _settings(self) -> dict[str, Any]:
        """What the compile takes beside weights, sites and pairs."""
        shots = None
        if self.shot_share is not None and self.execution.shots is not None:
            share = torch.tensor(self.shot_share, device=self.weight.device)
            shots = (share * self.execution.shots).round().clamp_min(1)
        return {
            "execution": self.execution,
            "scale_x": self._scale(),
            "bias": self.quantum_bias,
            "shots": shots,
        }

    def _scale(self) -> float:
        if self.input_scale is None:
            raise CalibrationError(
                "This layer has no activation scale yet: call calibrate(x) on the "
                "quantum-executed module with a few hundred training images."
            )
        return self.input_scale

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

    def _batched(self, x: Tensor) -> Tensor:
        """``x`` with a batch dimension."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _linear_map(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's linear map with ``kernel`` for weight."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _mix(self, x: Tensor, kernels: Kernels) -> Tensor:
        """At each position outputs from ``x``, by the kernel ``mixed.out``."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _window_sum(self, x: Tensor, scale: float) -> Tensor:
        """Σ (x / scale)² over all inputs of an output, with one channel; batches only."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The linear map of an all-ones input; ``kernel`` is summed over input channels."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _channels(self, values: Tensor) -> Tensor:
        """One number an output, shaped to broadcast over the output."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def sum_outputs(self, values: Tensor) -> Tensor:
        """Sum of ``values`` (as the layer's output) over images and positions, (out,)."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")


def quantum_layers(network: nn.Module) -> dict[str, QuantumLayer]:
    """The quantum-executed layers by name, in the order of ``named_modules``."""
    parts = network.named_modules()
    return {name: part for name, part in parts if isinstance(part, QuantumLayer)}


def _state(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when a tensor is another, or has other contents."""
    return id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype, tensor.device


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is recording this pass."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
