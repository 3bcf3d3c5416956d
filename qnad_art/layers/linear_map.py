"""The linear map of a layer: which inputs are multiplied by which weights.

Every layer holds one. The sums over its products (:mod:`qnad_art.layers.product_sums`) apply the
same map with several kernels to several functions of the activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Windows(NamedTuple):
    """The activations of all products.

    Args:
        values: (N, groups, J, positions), for J products per output.
        executed: (1, groups, J, positions); 1 for a product that is executed, 0 for one of zero
            padding, which is not.
        shape: shape of the layer's output, into which sums (N, out, positions) reshape.
    """

    values: Tensor
    executed: Tensor
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FullyConnected:
    """The map of :class:`torch.nn.Linear`; input (…, in), output (…, out)."""

    outputs: int
    groups: ClassVar[int] = 1

    def batched(self, x: Tensor) -> Tensor:
        """``x`` with a batch dimension."""
        return x[None] if x.dim() == 1 else x

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The map with ``kernel`` for weight."""
        return functional.linear(x, kernel, bias)

    def of_ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The map of an input of ones, for a ``kernel`` that is summed over input channels."""
        return kernel

    def per_output(self, values: Tensor) -> Tensor:
        """One number per output (out,), in a shape that broadcasts over the output."""
        return values

    def sum_by_channel(self, values: Tensor) -> Tensor:
        """Sum of an input or an output of the map over images and positions, (channels,)."""
        return self.batched(values).flatten(0, -2).sum(0)

    def windows(self, x: Tensor) -> Windows:
        """The activations of ``x``; all leading dimensions count images."""
        values = x.reshape(-1, 1, x.shape[-1], 1)
        return Windows(values, torch.ones_like(values[:1]), (*x.shape[:-1], self.outputs))


@dataclass(frozen=True)
class Convolution:
    """The map of :class:`torch.nn.Conv1d` and ``Conv2d``; input (N, C, …) or (C, …).

    Zero padding is not executed; any other padding is. The arguments are the plain layer's.
    """

    outputs: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: str
    groups: int

    @property
    def borders(self) -> tuple[tuple[int, int], ...]:
        """Padding before and after, for each axis."""
        if isinstance(self.padding, str):
            same = self.padding == "same"
            reach = [
                d * (k - 1) * same for d, k in zip(self.dilation, self.kernel_size, strict=True)
            ]
            return tuple((total // 2, total - total // 2) for total in reach)
        return tuple((size, size) for size in self.padding)

    def batched(self, x: Tensor) -> Tensor:
        """``x`` with a batch dimension."""
        return x if self._is_batch(x) else x[None]

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The map with ``kernel`` for weight."""
        if self.padding_mode == "zeros":
            padding = self.padding
        else:
            x, padding = self._padded(x), (0,) * len(self.kernel_size)
        return convolve(x, kernel, bias, self.stride, padding, self.dilation, self.groups)

    def of_ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        """The map of an input of ones of the size of ``x``, for a ``kernel`` (out, 1, …).

        The kernel is summed over input channels. The result has shape (out, …), with positions of
        size 1 if all are the same.
        """
        if self.padding_mode != "zeros" or not any(map(any, self.borders)):
            return self.per_output(kernel.flatten(1).sum(1))
        ones = kernel.new_ones((1, 1, *x.shape[-len(self.kernel_size) :]))
        return convolve(ones, kernel, None, self.stride, self.padding, self.dilation)[0]

    def per_output(self, values: Tensor) -> Tensor:
        """One number per output (out,), in a shape that broadcasts over the output."""
        return values.view(-1, *(1,) * len(self.kernel_size))

    def sum_by_channel(self, values: Tensor) -> Tensor:
        """Sum of an input or an output of the map over images and positions, (channels,)."""
        return self.batched(values).flatten(2).sum((0, 2))

    def windows(self, x: Tensor) -> Windows:
        """The activations of ``x``, a batch or one image."""
        batch, spatial = self.batched(x), len(self.kernel_size)
        parts = [self._unfolded(values) for values in (batch, torch.ones_like(batch[:1]))]
        output = (self.outputs, *parts[0].shape[-spatial:])
        values, executed = (
            part.reshape(len(part), self.groups, -1, math.prod(output[1:])) for part in parts
        )
        return Windows(values, executed, (-1, *output) if self._is_batch(x) else output)

    def _is_batch(self, x: Tensor) -> bool:
        return x.dim() == len(self.kernel_size) + 2

    def _padded(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        widths = [width for border in reversed(self.borders) for width in border]
        return functional.pad(x, widths, mode=mode)

    def _unfolded(self, x: Tensor) -> Tensor:
        """The padded batch ``x`` as (N, C, kernel positions…, output positions…)."""
        values, spatial = self._padded(x), len(self.kernel_size)
        for axis, size in enumerate(self.kernel_size):
            # The kernel position becomes the last dimension.
            reach = self.dilation[axis] * (size - 1) + 1
            values = values.unfold(2 + axis, reach, self.stride[axis])[..., :: self.dilation[axis]]
        return values.movedim(tuple(range(2, 2 + spatial)), tuple(range(-spatial, 0)))


LinearMap = FullyConnected | Convolution


def linear_map_of(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> LinearMap:
    """The linear map of a plain layer."""
    if isinstance(layer, nn.Linear):
        return FullyConnected(layer.out_features)
    return Convolution(
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.padding_mode,
        layer.groups,
    )


def convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Tensor:
    """The convolution of a batch ``x`` with ``kernel``, in one or two dimensions."""
    function = (functional.conv1d, functional.conv2d)[kernel.dim() - 3]
    return function(x, kernel, bias, stride, padding, dilation, groups)
