"""Activation scales of a network's layers, and the activations that saturate at them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from qnad_art.errors import ClippingWarning, InvalidInputError, QnadWarning
from qnad_art.layers.quantum_layer import QuantumLayer, quantum_layers
from qnad_art.network.observation import observe

HISTOGRAM_BINS = 1 << 14

_CALLER = 3
"""Stack level of the caller of ``QuantumExecutedModule.calibrate``."""


def set_scales(network: nn.Module, batches: Sequence[Tensor], percentile: float) -> None:
    """Set the scale of each layer, and the moments of its activations.

    See :meth:`qnad_art.network.module.QuantumExecutedModule.calibrate`, which checks the arguments.
    """
    layers = quantum_layers(network)
    largest = observe(network, batches, lambda layer, x: torch.linalg.vector_norm(x, torch.inf))
    scales = {name: float(torch.stack(values).max()) for name, values in largest.items()}
    _check_scales(layers, scales)
    scales = {name: max(scale, 1e-12) for name, scale in scales.items()}
    if percentile < 100:
        scales = _percentile_scales(network, batches, scales, percentile)
    for name, layer in layers.items():
        if name in scales:
            layer.input_scale = scales[name]
    missed = [name for name in layers if name not in scales]
    if missed:
        warnings.warn(
            f"The calibration data never reached {', '.join(missed)}, which therefore cannot run.",
            QnadWarning,
            stacklevel=_CALLER,
        )
    for name, values in observe(network, batches, _clipped_and_moments).items():
        square, fourth, count, beyond = torch.stack(values).sum(0)
        means, layer = square / count, layers[name]
        variance = fourth.sum() / count.sum() - means.square().mean()
        layer.input_spread = math.sqrt(max(float(variance), 0.0))
        layer.input_squares = tuple(round(mean, 6) for mean in means.tolist())
        layer.clipped = clipped = float(beyond.sum() / count.sum())
        if clipped > (100 - percentile) / 100 + 1e-3:
            warnings.warn(
                f"{clipped:.2%} of the activations of {name} lie above the "
                f"{percentile} percentile and saturate.",
                ClippingWarning,
                stacklevel=_CALLER,
            )


def check_percentile(percentile: float) -> None:
    """Raise :class:`InvalidInputError` unless ``percentile`` is in (0, 100]."""
    if not 0 < percentile <= 100:
        raise InvalidInputError(f"percentile is {percentile}; it must be in (0, 100].")


def saturated(network: nn.Module, batches: Sequence[Tensor]) -> dict[str, float]:
    """Fraction of each layer's activations that saturates at its scale."""
    found = {}
    for name, values in observe(network, batches, _clipped_and_moments).items():
        _, _, count, beyond = torch.stack(values).sum((0, 2))
        found[name] = float(beyond / count)
    return found


def _check_scales(layers: Mapping[str, QuantumLayer], scales: Mapping[str, float]) -> None:
    for name, layer in layers.items():
        largest, scale = float(layer.weight.detach().abs().max()), scales.get(name, 0.0)
        if not math.isfinite(largest):
            raise InvalidInputError(
                f"Layer {name!r} has NaN or infinite weights; load valid ones first."
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
            f"The calibration data are zero at the layers {', '.join(map(repr, dark))}, where any "
            "other activation will saturate: calibrate with images like those to be classified.",
            QnadWarning,
            stacklevel=_CALLER + 1,
        )


def _percentile_scales(
    network: nn.Module, batches: Sequence[Tensor], largest: Mapping[str, float], percentile: float
) -> dict[str, float]:
    """Percentile of |activation| within 1/16,384 of the maximum, with constant memory."""
    layers = quantum_layers(network)
    tops = {layers[name]: top for name, top in largest.items()}

    def histogram(layer: QuantumLayer, x: Tensor) -> Tensor:
        # histc counts in the type of the values, and float32 cannot count beyond 2**24.
        parts = (part.abs().float() for part in x.flatten().split(1 << 20))
        counts = (torch.histc(part, HISTOGRAM_BINS, 0.0, tops[layer]).double() for part in parts)
        return sum(counts, torch.zeros(HISTOGRAM_BINS, dtype=torch.float64, device=x.device))

    counts = observe(network, batches, histogram)
    scales = {}
    for name, values in counts.items():
        cumulative = torch.stack(values).sum(0).cumsum(0)
        wanted = cumulative[-1] * (percentile / 100)
        bin_index = int(torch.searchsorted(cumulative, wanted))
        scales[name] = largest[name] * min(bin_index + 1, HISTOGRAM_BINS) / HISTOGRAM_BINS
    return scales


def _clipped_and_moments(layer: QuantumLayer, x: Tensor) -> Tensor:
    """Σ sin²θ, Σ sin⁴θ, and how many activations there are and lie beyond the scale, by channel."""
    scale = layer.input_scale or torch.inf
    # Compare the values themselves, because a quotient may be rounded to more than 1.
    by_channel = layer.linear_map.sum_by_channel
    beyond = by_channel((x > scale) | (x < -scale))
    count = by_channel(x.new_ones((), dtype=torch.float64).expand(x.shape))
    unit = layer.input_scale or 1.0
    sine = layer.execution.mapping.sine(x.detach().float().clamp(-unit, unit), unit)
    square = (sine / unit).square_().clamp_max_(1)
    sums = [by_channel(square), by_channel(square.square_()), count, beyond]
    return torch.stack([values.double() for values in sums])
