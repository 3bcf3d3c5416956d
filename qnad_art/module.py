"""The quantum-executed network: a module whose convolutions and linear layers are circuits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from qnad_art.crosstalk.plan import CrosstalkPlan, inherent_plan
from qnad_art.device import DeviceProfile
from qnad_art.errors import ClippingWarning, InvalidInputError, QnadWarning
from qnad_art.kernels import Execution, Gain
from qnad_art.placement import Placement
from qnad_art.quantum_layer import QuantumLayer, is_tracing
from qnad_art.sampling import NoiseSource
from qnad_art.validation import all_finite

SHOTS_PERCENTILE = 99.5
"""Of the activations, taken as their scale where there is shot noise, which grows with the scale.

Chosen on validation images at 1,024 and 4,096 shots: LeNet-5 on MNIST, VGG16-BN on CIFAR-100."""

HISTOGRAM_BINS = 1 << 14


class QuantumExecutedModule(nn.Module):
    """A converted network with its device, placement, crosstalk plan and noise source.

    The noise is in the module itself, so whoever runs it (an attack that rebuilds its classifier
    from ``model``, say) runs the circuits. Make one with :func:`qnad_art.convert`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: DeviceProfile,
        placement: Placement,
        execution: Execution,
        noise: NoiseSource,
    ) -> None:
        super().__init__()
        self.network = network
        self.device_profile = device
        self.placement = placement
        self.noise = noise
        self._execution = execution
        self._plan = inherent_plan(device, placement, self.weight_shapes)
        self._install_plan()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the noisy execution; ``x`` as for the plain network, finite.

        Floating-point inputs are cast to the type of the weights, and the logits to that of the
        inputs: ART's are always float32.
        """
        given, x = x.dtype, self._in_own_type(x)
        if is_tracing():
            if self.shots is not None:
                raise InvalidInputError(
                    "torch.jit.trace would record one draw of the shot noise, not the noise: trace "
                    "with shots=None, or use torch.compile."
                )
        elif not all_finite(x):
            raise InvalidInputError("The input holds NaN or infinite values; clean it first.")
        with self.noise.forward_pass():
            result: Tensor = self.network(x)
        return result if x.dtype == given else result.to(given)

    @property
    def layers(self) -> dict[str, QuantumLayer]:
        """The quantum-executed layers by name, in the order of ``named_modules``."""
        return {
            name: module
            for name, module in self.network.named_modules()
            if isinstance(module, QuantumLayer)
        }

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each quantum-executed layer's products: its weight's, or with the bias."""
        return {name: layer.product_shape for name, layer in self.layers.items()}

    @property
    def execution(self) -> Execution:
        """Response table, shots and gain in force."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self._execution = execution
        for layer in self.layers.values():
            layer.execution = execution

    @property
    def shots(self) -> int | None:
        """Shots a product, ``None`` for the exact expectation."""
        return self._execution.shots

    @shots.setter
    def shots(self, shots: int | None) -> None:
        self.execution = replace(self._execution, shots=shots)

    @property
    def gain(self) -> Gain:
        """``"calibrated"`` or ``"raw"``."""
        return self._execution.gain

    @gain.setter
    def gain(self, gain: Gain) -> None:
        self.execution = replace(self._execution, gain=gain)

    @property
    def plan(self) -> CrosstalkPlan:
        """The crosstalk plan in force."""
        return self._plan

    @plan.setter
    def plan(self, plan: CrosstalkPlan) -> None:
        plan.check()
        plan.check_device(self.device_profile)
        if plan.shapes != self.weight_shapes:
            raise InvalidInputError(
                "The plan is for another network, or for biases that run otherwise (bias="
                f"{self._execution.bias!r} here): its layers are {plan.shapes}, those of this "
                f"network {self.weight_shapes}."
            )
        if plan.sites != self.placement.sites:
            raise InvalidInputError("The plan uses other sites than this module's placement.")
        largest = max((int(p.pairs.int().abs().max()) for p in plan.layers.values()), default=0)
        if largest > self._execution.table.max_pairs:
            raise InvalidInputError(
                f"The plan injects up to {largest} pairs; the response table ends at "
                f"{self._execution.table.max_pairs}. Convert with max_pairs={largest}."
            )
        self._plan = plan
        self._install_plan()

    def remove_crosstalk(self) -> None:
        """Back to inherent noise only."""
        self.plan = inherent_plan(self.device_profile, self.placement, self.weight_shapes)

    @contextmanager
    def frozen_draw(self) -> Iterator[None]:
        """Context in which every forward pass sees the same shot noise."""
        with self.noise.frozen():
            yield

    @contextmanager
    def classically(self) -> Iterator[None]:
        """Context in which the plain network runs, without circuits."""
        with self._engine(lambda layer, x: layer.classical(x)):
            yield

    @contextmanager
    def unsaturated_gradients(self) -> Iterator[None]:
        """Context in which gradients pass through saturated activations; outputs stay the same.

        Beyond the scale s_x an activation has no gradient, which hides from an attack what lies on
        the other side. An honest attack on a network with ``percentile`` below 100 tries this as
        well (backward pass differentiable approximation, Athalye et al. 2018).
        """
        before = {name: layer.unsaturated for name, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.unsaturated = True
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.unsaturated = before[name]

    def calibrate(
        self, x: Tensor, *, percentile: float | None = None, batch_size: int = 256
    ) -> None:
        """Set each layer's activation scale s_x from data.

        Args:
            x: inputs (N, …) of the plain network, some hundred training images.
            percentile: of |activation|, in (0, 100]; 100 is the maximum; ``None`` is that for the
                expectation, and :data:`SHOTS_PERCENTILE` with shots. Larger activations saturate;
                the fraction of the calibration data that does is kept in ``layer.clipped``, and a
                :class:`~qnad_art.errors.ClippingWarning` names the layers where it exceeds what
                the percentile asked for.
            batch_size: images a forward pass.
        """
        if percentile is None:
            percentile = 100.0 if self.shots is None else SHOTS_PERCENTILE
        if not 0 < percentile <= 100:
            raise InvalidInputError(f"percentile is {percentile}; it must be in (0, 100].")
        x = self._in_own_type(x)
        if len(x) == 0 or not all_finite(x):
            raise InvalidInputError(
                "Calibration needs at least one input, and none with NaN or infinite values."
            )
        batches = x.split(batch_size)
        largest = self._measure(batches, lambda layer, value: value.abs().max())
        scales = {name: float(torch.stack(v).max()) for name, v in largest.items()}
        self._check_scales(scales)
        scales = {name: max(scale, 1e-12) for name, scale in scales.items()}
        if percentile < 100:
            scales = self._percentile_scales(batches, scales, percentile)
        for name, layer in self.layers.items():
            if name in scales:
                layer.input_scale = scales[name]
        missed = [name for name in self.layers if name not in scales]
        if missed:
            warnings.warn(
                f"The calibration data never reached {', '.join(missed)}; these cannot run.",
                QnadWarning,
                stacklevel=2,
            )
        for name, values in self._measure(batches, _clipped_and_moments).items():
            square, fourth, count, beyond = torch.stack(values).sum(0)
            means, layer = square / count, self.layers[name]
            variance = fourth.sum() / count.sum() - means.square().mean()
            layer.input_spread = math.sqrt(max(float(variance), 0.0))
            layer.input_squares = tuple(round(mean, 6) for mean in means.tolist())
            layer.clipped = clipped = float(beyond.sum() / count.sum())
            if clipped > (100 - percentile) / 100 + 1e-3:
                warnings.warn(
                    f"{clipped:.2%} of the activations of {name} lie above the "
                    f"{percentile} percentile and saturate.",
                    ClippingWarning,
                    stacklevel=2,
                )

    def _check_scales(self, scales: Mapping[str, float]) -> None:
        for name, layer in self.layers.items():
            largest, scale = float(layer.weight.detach().abs().max()), scales.get(name, 0.0)
            if not math.isfinite(largest):
                raise InvalidInputError(
                    f"Layer {name!r} has NaN or infinite weights; load sound ones first."
                )
            if not largest * scale <= torch.finfo(layer.weight.dtype).max:
                raise InvalidInputError(
                    f"Layer {name!r} multiplies activations up to {scale:.2g} by weights up to "
                    f"{largest:.2g}, which overflows {layer.weight.dtype}: use a wider type or "
                    "smaller weights."
                )
        dark = [name for name, scale in scales.items() if scale == 0]
        if dark:
            warnings.warn(
                f"The calibration data are zero at the layers {', '.join(map(repr, dark))}, where "
                "anything else will saturate: calibrate with images like those to come.",
                QnadWarning,
                stacklevel=3,
            )

    def clipping(self, x: Tensor, *, batch_size: int = 256) -> dict[str, float]:
        """Fraction of each layer's activations on ``x`` that saturates at the scale s_x."""

        def beyond(layer: QuantumLayer, value: Tensor) -> Tensor:
            scale = layer.input_scale if layer.input_scale is not None else float("inf")
            return torch.tensor([float((value.abs() > scale).sum()), value.numel()])

        counts = self._measure(x.split(batch_size), beyond)
        totals = {name: torch.stack(values).double().sum(0) for name, values in counts.items()}
        return {name: float(total[0] / total[1]) for name, total in totals.items()}

    def products(self, x: Tensor) -> dict[str, int]:
        """Products an image of ``x`` costs, by layer (zero padding is not executed)."""
        counts = self._measure([x[:1]], lambda layer, value: torch.tensor(layer.products(value)))
        return {name: int(torch.stack(values).sum()) for name, values in counts.items()}

    def _percentile_scales(
        self, batches: Sequence[Tensor], largest: Mapping[str, float], percentile: float
    ) -> dict[str, float]:
        """Percentile of |activation| to 1/16,384 of the maximum, in flat memory."""
        names = {id(layer): name for name, layer in self.layers.items()}

        def histogram(layer: QuantumLayer, value: Tensor) -> Tensor:
            top = largest[names[id(layer)]]
            # Counted in the type of the values, and float32 stops counting at 2**24.
            return torch.histc(value.abs().double(), HISTOGRAM_BINS, 0.0, top)

        counts = self._measure(batches, histogram)
        scales = {}
        for name, values in counts.items():
            cumulative = torch.stack(values).sum(0).cumsum(0)
            wanted = cumulative[-1] * (percentile / 100)
            bin_index = int(torch.searchsorted(cumulative, wanted))
            scales[name] = largest[name] * min(bin_index + 1, HISTOGRAM_BINS) / HISTOGRAM_BINS
        return scales

    def _in_own_type(self, x: Tensor) -> Tensor:
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)
        return x.to(own) if x.is_floating_point() else x

    def _measure(
        self, batches: Sequence[Tensor], what: Callable[[QuantumLayer, Tensor], Tensor]
    ) -> dict[str, list[Tensor]]:
        """``what(layer, input)`` of every call of every layer while the plain network runs."""
        names = {id(layer): name for name, layer in self.layers.items()}
        found: dict[str, list[Tensor]] = {}

        def record(layer: QuantumLayer, value: Tensor) -> Tensor:
            found.setdefault(names[id(layer)], []).append(what(layer, value))
            return layer.classical(value)

        place = next(iter(self.parameters()), torch.empty(0))
        with torch.no_grad(), evaluating(self), self._engine(record):
            for batch in batches:
                self.network(batch.to(place.device))
        return found

    @contextmanager
    def _engine(self, engine: Callable[[QuantumLayer, Tensor], Tensor]) -> Iterator[None]:
        before = {name: layer.engine for name, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.engine = engine
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.engine = before[name]

    def _install_plan(self) -> None:
        for name, layer in self.layers.items():
            part = self._plan.layers[name]
            layer.assign(part.site, part.pairs)


def _clipped_and_moments(layer: QuantumLayer, value: Tensor) -> Tensor:
    """By input channel Σ x̂², Σ x̂⁴, the number of activations, and of those beyond the scale."""
    scaled = value.detach().float().abs() / (layer.input_scale or 1.0)
    square = scaled.clamp_max(1).square()
    # Of the values themselves: a quotient may round above 1.
    beyond = (value.abs() > (layer.input_scale or torch.inf)).float()
    parts = (square, square.square(), torch.ones_like(square), beyond)
    return torch.stack([layer.sum_outputs(part).double() for part in parts])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in eval mode; afterwards every part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


class AveragedDraws(nn.Module):
    """Mean over ``draws`` noisy passes: averaged prediction, and EOT when differentiated.

    A module, not an option of a classifier, so attacks that rebuild their classifier from
    ``model`` keep it (expectation over transformation, Athalye et al. 2018).

    Args:
        module: a noisy module returning logits (N, classes).
        draws: passes to average, at least 1.
        of: ``"logits"`` averages logits; ``"probabilities"`` returns the log of the mean softmax.
    """

    def __init__(
        self, module: nn.Module, draws: int, *, of: Literal["logits", "probabilities"] = "logits"
    ) -> None:
        super().__init__()
        if draws < 1:
            raise InvalidInputError(f"draws is {draws}; it must be at least 1.")
        if of not in ("logits", "probabilities"):
            raise InvalidInputError(f"of is {of!r}; it must be 'logits' or 'probabilities'.")
        self.module = module
        self.draws = draws
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        """Averaged logits (N, classes)."""
        with ExitStack() as stack:
            for module in self.modules():
                if isinstance(noise := getattr(module, "noise", None), NoiseSource):
                    stack.enter_context(noise.forward_pass())
            passes = torch.stack([self.module(x) for _ in range(self.draws)])
        if self.of == "logits":
            return passes.mean(0)
        return torch.logsumexp(passes.log_softmax(-1), 0) - torch.log(passes.new_tensor(self.draws))
