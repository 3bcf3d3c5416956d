"""Batch norm in eval mode, as part of the quantum-executed convolution before it.

It is one more factor and one more term of every output, so the compile takes them in exactly
(:mod:`qnad_art.layers.kernels`): mean and noise are multiplied, the mean is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from qnad_art.layers.kernels import Kernels
from qnad_art.layers.linear_and_conv import QuantumConv1d, QuantumConv2d
from qnad_art.layers.quantum_layer import QuantumLayer, state_of
from qnad_art.layers.speed.deferred import Deferred, may_fold, watched


class _Folding(nn.Module):
    """Batch norm that lets the layer before it do its work, where it can."""

    def forward(self, input: Tensor) -> Tensor:
        """As the plain layer's."""
        if isinstance(input, Deferred) and not torch.is_grad_enabled():
            kernels = normalised_kernels(input.layer, self) if input.pending else None
            if kernels is not None:
                return input.normalised(kernels)
            input = input.settle()
        result: Tensor = super().forward(input)
        return result


class BatchNorm1d(_Folding, nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d`, folded into the convolution before it."""


class BatchNorm2d(_Folding, nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d`, folded into the convolution before it."""


class Sequential(nn.Sequential):
    """:class:`torch.nn.Sequential`, where nobody is between a convolution and its batch norm."""

    def forward(self, input: Any) -> Any:
        """As the plain container's."""
        parts: list[Any] = list(self)
        place = 0
        while place < len(parts):
            kernels = _folded(parts[place : place + 2], input)
            if kernels is None:
                input = parts[place](input)
            else:
                input = parts[place].compiled(input, kernels)
            place += 1 if kernels is None else 2
        return input


_FOLDING: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.Sequential: Sequential,
}
_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    QuantumConv1d: BatchNorm1d,
    QuantumConv2d: BatchNorm2d,
}


def fold_batch_norm(network: nn.Module) -> None:
    """Have batch norms folded: within sequences, and where their parts are listed as in one."""
    for part in network.modules():
        if type(part) in _FOLDING:
            part.__class__ = _FOLDING[type(part)]
    for part in network.modules():
        if type(part) is not Sequential:
            for layer, norm in pairwise(part.children()):
                if isinstance(layer, QuantumLayer) and type(norm) is _AFTER.get(type(layer)):
                    layer.defers = True


def _folded(parts: Sequence[nn.Module], x: Any) -> Kernels | None:
    """Kernels for a convolution and the batch norm after it, if that is what ``parts`` are."""
    layer, norm = parts[0], parts[-1]
    if not isinstance(layer, QuantumLayer) or type(norm) is not _AFTER.get(type(layer)):
        return None
    circuits = layer.engine is None and layer._tuned is None
    if not circuits or not may_fold(layer, x) or watched(norm):
        return None
    return normalised_kernels(layer, norm)


def normalised_kernels(layer: QuantumLayer, norm: Any) -> Kernels | None:
    """The layer's kernels with the batch norm ``norm`` in them; ``None`` where that is no constant.

    Computed once and again when anything that they depend on changes.
    """
    if norm.training or norm.running_mean is None or norm.num_features != layer.weight.shape[0]:
        return None
    own = [t for t in (norm.weight, norm.bias) if t is not None]
    trained = [*own, *([] if layer.bias is None else [layer.bias]), layer.weight]
    if torch.is_grad_enabled() and any(t.requires_grad for t in trained):
        return None
    read = [*own, norm.running_mean, norm.running_var]
    key = (layer.settings_key(), *map(state_of, read), norm.eps)
    cache = layer._normalised
    if cache is None or cache[0] != key:
        with torch.inference_mode(False), torch.no_grad():
            folded = _fold(layer.kernels(), layer, norm)
        layer.invalidate()  # the others would be as much memory again
        cache = layer._normalised = (key, folded, (read, layer._watched()))
    kernels: Kernels = cache[1]
    return kernels


def _fold(kernels: Kernels, layer: QuantumLayer, norm: Any) -> Kernels:
    wide = torch.promote_types(norm.running_var.dtype, torch.float32)
    factor = (norm.running_var.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight
    term = -norm.running_mean.to(wide) * factor
    if norm.bias is not None:
        term = term + norm.bias
    bias = kernels.get("mean.bias", layer.bias)

    def scaled(kernel: Tensor) -> Tensor:
        return kernel.mul(factor.view(-1, *(1,) * (kernel.dim() - 1))).to(kernel.dtype)

    folded = {
        name: scaled(kernel) if name.startswith("mean.") or name == "noise" else kernel
        for name, kernel in kernels.items()
    }
    return {**folded, "mean.bias": term if bias is None else bias * factor + term}
