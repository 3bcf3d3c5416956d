"""Convolutions whose gradient of the input is one more convolution.

So it is for a stride of one: of the output's gradient, with the kernels turned round. Where a layer
has few outputs, as the first one of a small network has, that takes a quarter of what torch's own
gradient takes, which fills up the outputs to blocks of 16. Forward, it is torch's convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MOST_OUTPUTS = 8
"""With more outputs torch's own gradient is as fast, measured on 6 and 16."""

Sizes = tuple[int, ...]


def suits(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: Sizes, padding: Any) -> bool:
    """Whether :func:`convolve` gives the gradient of ``x``, faster than torch; padding is zeros."""
    if not torch.is_grad_enabled() or not x.requires_grad or kernel.requires_grad:
        return False
    if kernel.shape[0] > MOST_OUTPUTS or kernel.shape[1] != x.shape[1] or x.device.type != "cpu":
        return False
    if (bias is not None and bias.requires_grad) or torch.compiler.is_compiling():
        return False
    if isinstance(padding, str) or set(stride) != {1}:
        return False
    return all(p < k for p, k in zip(padding, kernel.shape[2:], strict=True))


def convolve(
    x: Tensor, kernel: Tensor, bias: Tensor | None, padding: Sizes, dilation: Sizes
) -> Tensor:
    """The convolution of ``x`` with stride one; the gradient is that of ``x`` alone."""
    result: Tensor = _Convolve.apply(x, kernel, bias, padding, dilation)
    return result


class _Convolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, kernel: Tensor, bias: Tensor | None, padding: Sizes, dilation: Sizes
    ) -> Tensor:
        return _convolution(x, kernel, bias, padding, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.padding, ctx.dilation = inputs[3:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (kernel,) = gradients, ctx.saved_tensors
        turned = kernel.flip(tuple(range(2, kernel.dim()))).transpose(0, 1).to(gradient.dtype)
        reach = [d * (k - 1) for d, k in zip(ctx.dilation, kernel.shape[2:], strict=True)]
        border = tuple(r - p for r, p in zip(reach, ctx.padding, strict=True))
        return _convolution(gradient, turned, None, border, ctx.dilation), *(None,) * 4


def _convolution(
    x: Tensor, kernel: Tensor, bias: Tensor | None, padding: Sizes, dilation: Sizes
) -> Tensor:
    function = (functional.conv1d, functional.conv2d)[kernel.dim() - 3]
    return function(x, kernel, bias, 1, padding, dilation)
