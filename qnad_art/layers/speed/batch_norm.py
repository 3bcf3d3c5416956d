"""Batch norm in eval mode, as part of the quantum-executed convolution before it.

It is one more factor and one more term of every output, so the compile takes them in exactly
(:mod:`qnad_art.layers.kernels`): mean and noise are multiplied, the mean is moved.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from qnad_art.layers.kernels import Kernels
from qnad_art.layers.linear_map import Convolution
from qnad_art.layers.speed.accelerated import Accelerated
from qnad_art.layers.speed.deferred import Deferred, is_observed, may_fold, postponed
from qnad_art.layers.speed.kernel_cache import state_of
from qnad_art.layers.speed.layer import FastLayer


class _BatchNorm(Accelerated):
    """Batch norm that lets the layer before it do its work, where it can."""

    def forward(self, input: Tensor) -> Tensor:
        """As the plain layer's."""
        if isinstance(input, Deferred) and not torch.is_grad_enabled():
            assert isinstance(self, (BatchNorm1d, BatchNorm2d))
            kernels = normalised_kernels(input.layer, self) if input.pending else None
            if kernels is not None:
                return input.normalised(kernels)
            input = input.settle()
        result: Tensor = super().forward(input)
        return result


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d`, folded into the convolution before it."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d`, folded into the convolution before it."""


class Sequential(Accelerated, nn.Sequential):
    """:class:`torch.nn.Sequential`, where nothing is between a convolution and its batch norm."""

    def forward(self, input: Any) -> Any:
        """As the plain container's."""
        parts: list[Any] = list(self)
        place = 0
        while place < len(parts):
            kernels = self._folded(parts[place : place + 2], input)
            if kernels is None:
                input = parts[place](input)
            else:
                input = parts[place].compiled(input, kernels)
            place += 1 if kernels is None else 2
        return input

    def _folded(self, parts: list[nn.Module], x: object) -> Kernels | None:
        """Kernels for a convolution and the batch norm after it, if that is what ``parts`` are."""
        layer, norm = parts[0], parts[-1]
        if not self.accelerated or not isinstance(layer, FastLayer) or not _follows(norm, layer):
            return None
        circuits = layer.engine is None and layer.tuned is None
        if not circuits or not may_fold(layer, x) or is_observed(norm):
            return None
        return normalised_kernels(layer, norm)


_FOLDING: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.Sequential: Sequential,
}


def fold_batch_norm(network: nn.Module) -> None:
    """Have batch norms folded: within sequences, and where their parts are listed as in one."""
    for part in network.modules():
        if type(part) in _FOLDING:
            part.__class__ = _FOLDING[type(part)]
    for part in network.modules():
        if type(part) is not Sequential:
            for layer, norm in pairwise(part.children()):
                if isinstance(layer, FastLayer) and _follows(norm, layer):
                    layer.postpone = postponed


def _follows(norm: nn.Module, layer: FastLayer) -> TypeGuard[BatchNorm1d | BatchNorm2d]:
    """Whether ``norm`` is a batch norm for the outputs of the convolution ``layer``."""
    if not isinstance(layer.linear_map, Convolution):
        return False
    return type(norm) is (BatchNorm1d, BatchNorm2d)[len(layer.linear_map.kernel_size) - 1]


def normalised_kernels(layer: FastLayer, norm: BatchNorm1d | BatchNorm2d) -> Kernels | None:
    """The layer's kernels with the batch norm ``norm`` in them; ``None`` where that is no constant.

    Computed once and again when anything that they depend on changes.
    """
    mean, variance = norm.running_mean, norm.running_var
    if norm.training or mean is None or variance is None:
        return None
    if norm.num_features != layer.linear_map.outputs:
        return None
    own = [t for t in (norm.weight, norm.bias) if t is not None]
    trained = [*own, *([] if layer.bias is None else [layer.bias]), layer.weight]
    if torch.is_grad_enabled() and any(t.requires_grad for t in trained):
        return None
    read = [*own, mean, variance]
    key = (layer.settings_key(), *map(state_of, read), norm.eps)

    def fold() -> Kernels:
        with torch.no_grad():
            kernels = layer.kernels()
            folded = _fold(kernels, layer.bias_after(kernels), norm, mean, variance)
        layer.invalidate()  # the others would be as much memory again
        return folded

    return layer.normalised.get(key, lambda: (*read, *layer.in_the_key()), fold)


def _fold(
    kernels: Kernels,
    bias: Tensor | None,
    norm: BatchNorm1d | BatchNorm2d,
    mean: Tensor,
    variance: Tensor,
) -> Kernels:
    wide = torch.promote_types(variance.dtype, torch.float32)
    factor = (variance.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight
    term = -mean.to(wide) * factor
    if norm.bias is not None:
        term = term + norm.bias

    def scaled(kernel: Tensor) -> Tensor:
        return kernel.mul(factor.view(-1, *(1,) * (kernel.dim() - 1))).to(kernel.dtype)

    noise = kernels.variance
    return replace(
        kernels,
        x=scaled(kernels.x),
        constant=scaled(kernels.constant),
        cos=None if kernels.cos is None else scaled(kernels.cos),
        bias=term if bias is None else bias * factor + term,
        variance=None if noise is None else replace(noise, scale=scaled(noise.scale)),
    )
