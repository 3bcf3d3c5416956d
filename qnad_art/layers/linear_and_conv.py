"""Convolution and linear layers whose every product is a noisy quantum circuit.

They are the plain layers' own classes with another forward,
:class:`~qnad_art.layers.quantum_layer.QuantumLayer`'s; here is what linear map each of them has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.layers.kernels import Kernels
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.layers.shot_noise import sum_of_squares
from qnad_art.layers.speed.convolution import convolve, suits


class QuantumLinear(QuantumLayer, nn.Linear):
    """:class:`torch.nn.Linear` as quantum circuits; input (…, in), output (…, out)."""

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`QuantumLayer._windows`; every leading dimension of ``x`` counts as images."""
        windows = x.reshape(-1, 1, x.shape[-1], 1)
        return windows, torch.ones_like(windows[:1]), (*x.shape[:-1], self.out_features)

    def _batched(self, x: Tensor) -> Tensor:
        return x[None] if x.dim() == 1 else x

    def _linear_map(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, kernel, bias)

    def _mix(self, x: Tensor, kernels: Kernels) -> Tensor:
        return functional.linear(x, kernels["mixed.out"])

    def _window_sum(self, x: Tensor, scale: float) -> Tensor:
        return sum_of_squares(x, scale, -1)

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        return kernel

    def _channels(self, values: Tensor) -> Tensor:
        return values

    def sum_outputs(self, values: Tensor) -> Tensor:
        """See :meth:`QuantumLayer.sum_outputs`."""
        return self._batched(values).flatten(0, -2).sum(0)


class _QuantumConv(QuantumLayer):
    """Part common to the convolutions: padding that exists is executed, zero padding is not."""

    stride: Any
    padding: Any
    dilation: Any
    padding_mode: Any
    groups: int
    _reversed_padding_repeated_twice: list[int]

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """See :meth:`QuantumLayer._windows`; ``x`` is a batch or one image."""
        batched = x.dim() == self.weight.dim()
        x = self._batched(x)
        output = self._linear_map(x[:1], self.weight.detach()).shape[1:]
        padding = self._reversed_padding_repeated_twice
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        ones = torch.ones_like(x[:1])
        x, ones = (functional.pad(values, padding, mode=mode) for values in (x, ones))

        def unfold(values: Tensor) -> Tensor:
            for axis, size in enumerate(self.weight.shape[2:]):
                values = _sliding(values, 2 + axis, size, self.stride[axis], self.dilation[axis])
            spatial = len(output) - 1
            values = values.movedim(tuple(range(2, 2 + spatial)), tuple(range(-spatial, 0)))
            return values.reshape(len(values), self.groups, -1, output[1:].numel())

        return unfold(x), unfold(ones), (-1, *output) if batched else tuple(output)

    def _batched(self, x: Tensor) -> Tensor:
        return x if x.dim() == self.weight.dim() else x[None]

    def _linear_map(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        zeros = self.padding_mode == "zeros"
        if zeros and suits(x, kernel, bias, self.stride, self.padding):
            return convolve(x, kernel, bias, self.padding, self.dilation)
        result: Tensor = self._conv_forward(x, kernel, bias)  # type: ignore[operator]
        return result

    def _mix(self, x: Tensor, kernels: Kernels) -> Tensor:
        convolution = (functional.conv1d, functional.conv2d)[x.dim() - 3]
        return convolution(x, kernels["mixed.out"])

    def _window_sum(self, x: Tensor, scale: float) -> Tensor:
        squares = sum_of_squares(x, scale, 1)
        return self._linear_map(squares, squares.new_ones((1, 1, *self.weight.shape[2:])))

    def _ones(self, kernel: Tensor, x: Tensor) -> Tensor:
        spatial = kernel.dim() - 2
        if self.padding_mode != "zeros" or self.padding in ("valid", (0,) * spatial):
            return self._channels(kernel.flatten(1).sum(1))
        ones = kernel.new_ones((1, 1, *x.shape[-spatial:]))
        convolution = (functional.conv1d, functional.conv2d)[spatial - 1]
        return convolution(ones, kernel, None, self.stride, self.padding, self.dilation)[0]

    def _channels(self, values: Tensor) -> Tensor:
        return values.view(-1, *(1,) * (self.weight.dim() - 2))

    def sum_outputs(self, values: Tensor) -> Tensor:
        """See :meth:`QuantumLayer.sum_outputs`."""
        return self._batched(values).flatten(2).sum((0, 2))


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


def _sliding(values: Tensor, axis: int, size: int, stride: int, dilation: int) -> Tensor:
    """Windows along ``axis``; the kernel position becomes the last dimension."""
    windows = values.unfold(axis, dilation * (size - 1) + 1, stride)
    return windows[..., ::dilation]
