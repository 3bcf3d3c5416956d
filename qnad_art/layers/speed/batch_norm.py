"""Batch norm in eval mode, as part of the quantum-executed convolution before it.

Batch norm multiplies every output by a factor and adds a term, so the compiled kernels
(:mod:`qnad_art.layers.kernels`) can hold both exactly: mean and noise are multiplied, and the mean
is moved. This happens inside an ``nn.Sequential``, where nothing else reads the convolution's
output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from qnad_art.layers.kernels import Kernels
from qnad_art.layers.linear_map import Convolution
from qnad_art.layers.speed.accelerated import Accelerated, is_recorded
from qnad_art.layers.speed.kernel_cache import state_of
from qnad_art.layers.speed.layer import FastLayer

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


class Sequential(Accelerated, nn.Sequential):
    """:class:`torch.nn.Sequential`, which folds batch norms into the convolutions before them."""

    def forward(self, input: Any) -> Any:
        """The same as in the plain container."""
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
        """Kernels of a convolution with the batch norm after it, if ``parts`` are these two."""
        layer, norm = parts[0], parts[-1]
        if not self.accelerated or not isinstance(layer, FastLayer) or not _follows(norm, layer):
            return None
        circuits = layer.engine is None and layer.tuned is None
        if not circuits or not isinstance(x, Tensor) or x.dim() != layer.weight.dim():
            return None
        if is_recorded() or torch.is_autocast_enabled(x.device.type):
            return None
        return None if _is_observed(layer) or _is_observed(norm) else normalised(layer, norm)


def fold_batch_norm(network: nn.Module) -> None:
    """Have the sequences in ``network`` fold their batch norms."""
    for part in network.modules():
        if type(part) is nn.Sequential:
            part.__class__ = Sequential


def _follows(norm: nn.Module, layer: FastLayer) -> TypeGuard[BatchNorm]:
    """Whether ``norm`` is a batch norm for the outputs of the convolution ``layer``."""
    if not isinstance(layer.linear_map, Convolution):
        return False
    return type(norm) is (nn.BatchNorm1d, nn.BatchNorm2d)[len(layer.linear_map.kernel_size) - 1]


def _is_observed(module: nn.Module) -> bool:
    """Whether hooks look at what goes in or comes out of ``module``."""
    own = module._forward_hooks or module._forward_pre_hooks
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(own or backward or modules._has_any_global_hook())


def normalised(layer: FastLayer, norm: BatchNorm) -> Kernels | None:
    """The layer's kernels with the batch norm ``norm`` in them.

    They are computed again only when anything on which they depend changes. ``None`` where the
    batch norm depends on the batch, or where gradients of weights are needed.
    """
    mean, variance = norm.running_mean, norm.running_var
    if norm.training or mean is None or variance is None:
        return None
    if norm.num_features != layer.linear_map.outputs:
        return None
    parameters = [t for t in (layer.weight, layer.bias, norm.weight, norm.bias) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in parameters):
        return None

    def fold() -> Kernels:
        with torch.no_grad():
            folded = _fold(layer, norm, mean, variance)
        layer.invalidate()  # Keeping the layer's own kernels as well would double the memory.
        return folded

    read = [t for t in (norm.weight, norm.bias, mean, variance) if t is not None]
    key = (layer.settings_key(), *map(state_of, read), norm.eps)
    return layer.normalised.get(key, (*read, *layer.in_the_key()), fold)


def _fold(layer: FastLayer, norm: BatchNorm, mean: Tensor, variance: Tensor) -> Kernels:
    kernels = layer.kernels()
    bias = layer.bias if kernels.bias is None else kernels.bias
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
