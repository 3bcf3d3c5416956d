"""What the quantum-executed layers have in common: how they run, the compile's cache, shot noise.

A layer computes with kernels from :mod:`~.layers.kernels`, its plain linear map, and shot noise;
:mod:`~.layers.product_sums` says how, :mod:`~.layers.linear_and_conv` what the linear map is.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from qnad_art.errors import InvalidInputError
from qnad_art.layers.gradients import kernels_of_weight
from qnad_art.layers.kernels import (
    Execution,
    Kernels,
    compile_in_blocks,
    compile_kernels,
    with_bias,
)
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.product_sums import ProductSums
from qnad_art.layers.shot_noise import Variance, at, disturb_in_place
from qnad_art.layers.speed.deferred import Deferred, may_defer
from qnad_art.layers.tracing import is_tracing
from qnad_art.layers.variance import Form, at_the_mean, cheapest, drop_negligible, take


class QuantumLayer(ProductSums):
    """A layer whose every product is a noisy quantum circuit.

    Subclasses are the plain layer's own class as well, so parameters, ``state_dict`` keys, hooks
    and ``repr`` stay those of the network that was converted.
    """

    execution: Execution
    noise: NoiseSource
    engine: Any
    input_spread: float | None
    """Standard deviation of x̂² over the calibration data, within a channel."""
    input_squares: tuple[float, ...] | None
    """Mean of x̂² of every input channel."""
    clipped: float
    shot_share: tuple[float, ...] | None
    """Shots of each output's products over the module's; ``None`` for 1 each."""
    defers: bool
    """Whether its output waits for a batch norm to fold, see :mod:`~.speed.batch_norm`."""
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
        self.defers = False
        shape, device = self.product_shape, self.weight.device
        for name, kind in (("site", torch.int16), ("pairs", torch.int8)):
            zero = torch.zeros((), dtype=kind, device=device)
            self.register_buffer(name, zero.expand(shape), False)
        self._cache: tuple[Any, Kernels, Any] | None = None
        self._tuned: Kernels | None = None
        self._normalised: tuple[Any, ...] | None = None
        self._constants = {}

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
        return Deferred.of(self, x) if may_defer(self, x) else self.compiled(x)

    def classical(self, x: Tensor) -> Tensor:
        """What the plain layer would have computed."""
        result: Tensor = super().forward(x)
        return result

    def compiled(self, x: Tensor, kernels: Kernels | None = None) -> Tensor:
        """The exact compile: expectation, plus Gaussian shot noise if ``shots`` is set.

        With other ``kernels`` than :meth:`kernels`, the output that these give.
        """
        batch, kernels = self._batched(x), self.kernels() if kernels is None else kernels
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

    def kernels(self) -> Kernels:
        """The compiled kernels, computed once and again when anything they depend on changes.

        Weights are watched by autograd's version counter; after an edit through ``weight.data``,
        which bypasses it, call :meth:`invalidate`.
        """
        weight = self.weight
        if self._tuned is not None:
            return self._tuned
        if is_tracing():  # kept kernels would be constants of the trace
            return compile_kernels(weight, self.site, self.pairs, **self._settings())
        key, cache = self.settings_key(), self._cache
        if cache is None or cache[0] != key:
            _count_fused_steps()
            # Holding what the key names keeps its ids from being given to other objects.
            with torch.inference_mode(False):  # its tensors could not be used for gradients later
                cache = self._cache = (key, self._compile(), self._watched())
            self._constants = {}
        kernels = cache[1]
        bias = self.quantum_bias
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained and torch.is_grad_enabled():
            settings = {**self._settings(), "squares": self.input_squares}
            bias = settings.pop("bias")
            return kernels_of_weight(kernels, weight, bias, self.site, self.pairs, **settings)
        return kernels

    def settings_key(self) -> tuple[Any, ...]:
        """Changes with anything that the kernels depend on, but for sites and pairs."""
        weight, bias, execution, squares = self._watched()
        states = state_of(weight), None if bias is None else state_of(bias)
        chosen = (self.input_scale, self.input_spread, self.shot_share)
        return (*states, id(execution), *chosen, id(squares))

    def _watched(self) -> tuple[Any, ...]:
        return self.weight, self.bias, self.execution, self.input_squares

    def tune(self, wanted: Tensor | None) -> None:
        """Run with kernels that are differentiable with respect to ``wanted``, until ``None``.

        See :func:`~.kernels.compile_kernels`. Compiled here, once, for all passes after.
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
        self._cache = self._normalised = None

    def products(self, x: Tensor) -> int:
        """Products (circuits) that a batch ``x`` of inputs costs in this layer."""
        batch = self._batched(x)
        windows, executed, _ = self.windows(batch[:1])
        outputs_a_group: int = self.weight.shape[0] // executed.shape[1]
        return int(executed.sum()) * len(windows) * outputs_a_group * len(batch)

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

    def __getstate__(self) -> dict[str, Any]:
        forgotten: dict[str, Any] = {
            "_cache": None,
            "_tuned": None,
            "_normalised": None,
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


def quantum_layers(network: nn.Module) -> dict[str, QuantumLayer]:
    """The quantum-executed layers by name, in the order of ``named_modules``."""
    parts = network.named_modules()
    return {name: part for name, part in parts if isinstance(part, QuantumLayer)}


@cache
def _count_fused_steps() -> None:
    """Have fused optimizers count as changes what they do to weights, as all other code does.

    Their kernels leave the version as it is that :func:`state_of` looks at: a network would be
    trained, and the circuits stay those of the weights before.
    """

    def count(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"] if group.get("fused") else ():
                increment_version(weight)

    register_optimizer_step_post_hook(count)


def state_of(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when a tensor is another, or has other contents."""
    return id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype, tensor.device
