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
from qnad_art.kernels import (
    SHARING_TOLERANCE,
    Execution,
    Kernels,
    compile_in_blocks,
    compile_kernels,
    drop_negligible,
    share_variance,
    sharing_error,
    with_bias,
)
from qnad_art.sampling import NoiseSource


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
        self.clipped = 0.0
        self.shot_share = None
        shape, device = self.product_shape, self.weight.device
        self.register_buffer("site", torch.zeros(shape, dtype=torch.int16, device=device), False)
        self.register_buffer("pairs", torch.zeros(shape, dtype=torch.int8, device=device), False)
        self._cache: tuple[Any, Kernels, Any] | None = None
        self._tuned: Kernels | None = None
        self._constants: dict[Any, tuple[Tensor, Tensor]] = {}

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
        mean, variance = self.moments(x)
        return mean if variance is None else self.disturbed(mean, variance, self.noise)

    def disturbed(self, mean: Tensor, variance: Tensor, source: NoiseSource) -> Tensor:
        """A draw around what :meth:`moments` gave, which it overwrites."""
        # In place where autograd allows: fresh memory costs the CPU more than the arithmetic.
        tiny = torch.finfo(mean.dtype).tiny
        noise = source.normal_like(mean)
        if variance.requires_grad:
            noise = noise * variance.clamp_min(tiny).sqrt()
        else:
            noise.mul_(variance.clamp_min_(tiny).sqrt_())
        return mean.addcmul_(noise, self._channels(self.kernels()["noise"]))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Exact mean of the output; variance in units of ``noise²`` (``None`` without shots)."""
        scale = self._scale()
        kernels = self.kernels()
        # One ulp wider: clamp has no gradient *at* its bounds, where white pixels lie.
        limit = scale * (1 + torch.finfo(x.dtype).eps)
        x = clamp_straight_through(x, limit) if self.unsaturated else x.clamp(-limit, limit)
        features = {"x": x}
        if any(name.endswith("cos") for name in kernels):
            # The root's slope is infinite at the ends of its range, where clamping has none.
            cosine = (1 - (x / scale).square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
            features |= {"cos": cosine, "xcos": x / scale * cosine}
        if "second.x2" in kernels or "shared.x2" in kernels:
            features["x2"] = (x / scale).square()
        mean = self._polynomial("mean", features, kernels)
        assert mean is not None
        mean = mean.add_(self._constant("mean.1", kernels, x))
        if "noise" not in kernels:
            return mean, None
        # In tuning the variance counts as constant: its gradient is small, and not cheap.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tuned is None):
            return mean, self._variance(features, kernels, mean.shape)

    def _variance(self, features: dict[str, Tensor], kernels: Kernels, shape: torch.Size) -> Tensor:
        constant = self._constant("variance.1", kernels, features["x"])
        if "variance.bias" in kernels:
            constant = constant + self._channels(kernels["variance.bias"])
        if "shared.x2" in kernels:
            shared = self._linear_map(features["x2"], kernels["shared.x2"])
            constant = torch.addcmul(constant, shared, self._channels(kernels["shared.out"]))
        variance = self._polynomial("second", features, kernels)
        return constant.expand(shape).clone() if variance is None else variance.add_(constant)

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
        key = (
            *((id(t), t._version, t.data_ptr(), t.dtype, t.device) for t in watched),
            *(id(self.execution), self.input_scale, self.input_spread, self.shot_share),
        )
        cache = self._cache
        if cache is None or cache[0] != key:
            # Holding what the key names keeps its ids from being given to other objects.
            with torch.inference_mode(False):  # its tensors could not be used for gradients later
                cache = self._cache = (key, self._compile(), (*watched, self.execution))
            self._constants = {}
        kernels = cache[1]
        settings = self._settings()
        bias = settings.pop("bias")
        if torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (weight, bias)
        ):
            return kernels_of_weight(kernels, weight, bias, self.site, self.pairs, **settings)
        return kernels

    def tune(self, wanted: Tensor | None) -> None:
        """Run with kernels that are differentiable with respect to ``wanted``, until ``None``.

        See :func:`~qnad_art.kernels.compile_kernels`. Compiled here, once, for all passes after.
        """
        self._tuned, self._constants = None, {}
        if wanted is not None:
            kernels = compile_kernels(
                self.weight, self.site, self.pairs, **self._settings(), wanted=wanted
            )
            self._tuned = self._economise(kernels)

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
        return {**self.__dict__, "_cache": None, "_tuned": None, "_constants": {}}

    def _compile(self) -> Kernels:
        kernels = compile_in_blocks(self.weight, self.site, self.pairs, **self._settings())
        return self._economise(kernels)

    def _economise(self, kernels: Kernels) -> Kernels:
        """The variance in its cheaper form, where the calibration data allow it."""
        spread = self.input_spread
        if self.execution.shots is None:
            return kernels
        kernels = drop_negligible(kernels, scale_x=self._scale())
        if spread is None or getattr(self, "groups", 1) > 1 or "second.cos" in kernels:
            return kernels
        values = {name: kernel.detach() for name, kernel in kernels.items()}
        error = sharing_error(values, spread=spread)
        return share_variance(kernels) if error <= SHARING_TOLERANCE else kernels

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
        self, kind: str, features: dict[str, Tensor], kernels: Kernels
    ) -> Tensor | None:
        """Sum of the linear maps of all features that have a kernel of this kind."""
        total: Tensor | None = None
        for name, feature in features.items():
            kernel = kernels.get(f"{kind}.{name}")
            if kernel is not None:
                term = self._linear_map(feature, kernel)
                total = term if total is None else total.add_(term)
        return total

    def _constant(self, name: str, kernels: Kernels, x: Tensor) -> Tensor:
        """A constant term by output position (padding is not executed); the mean's has the bias."""
        bias = None
        if name == "mean.1":
            bias = kernels.get("mean.bias", self.bias)
        tracked = kernels[name].requires_grad or (
            bias is not None and bias.requires_grad and torch.is_grad_enabled()
        )
        kernel = kernels[name]
        if tracked:
            return self._positions(kernel, bias, x)
        key = (name, x.shape[-2:])
        kept = self._constants.get(key)
        # Other threads may be at it too: what counts is whose constant it is.
        if kept is None or kept[0] is not kernel:
            with torch.inference_mode(False), torch.no_grad():
                kept = self._constants[key] = (kernel, self._positions(kernel, bias, x))
        return kept[1]

    def _positions(self, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        # The convolution of the ones would be rounded to the precision of autocast, and kept.
        with torch.autocast(x.device.type, enabled=False):
            value = self._ones(kernel, x)
        return value if bias is None else value + self._channels(bias)

    def _batched(self, x: Tensor) -> Tensor:
        """``x`` with a batch dimension."""
        raise InvalidInputError(f"{type(self).__name__} is not a concrete layer.")

    def _linear_map(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The layer's linear map with ``kernel`` for weight and no bias."""
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


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is recording this pass."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
