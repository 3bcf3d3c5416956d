"""Gradients that autograd would not give by itself: past saturation, and to cached kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qnad_art.layers import variance
from qnad_art.layers.kernels import Kernels, compile_kernels


def clamp_straight_through(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` clamped to [low, high], with the gradient of the identity."""
    result: Tensor = _ClampStraightThrough.apply(x, low, high)
    return result


def kernels_of_weight(
    kernels: Kernels,
    weight: Tensor,
    bias: Tensor | None,
    site: Tensor,
    pairs: Tensor,
    *,
    squares: tuple[float, ...] | None,
    **settings: Any,
) -> Kernels:
    """The compiled ``kernels``, differentiable in weight and bias; compiled again if that is asked.

    ``squares`` as in :func:`qnad_art.layers.variance.cheapest`; the other arguments are those of
    :func:`~qnad_art.layers.kernels.compile_kernels` that gave them.
    """
    form = (list(kernels), variance.form_of(kernels), squares)
    tensors = _KernelsOfWeight.apply(weight, bias, site, pairs, settings, form, *kernels.values())
    return dict(zip(kernels, tensors, strict=True))


class _ClampStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None


class _KernelsOfWeight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        site: Tensor,
        pairs: Tensor,
        settings: dict[str, Any],
        form: tuple[list[str], variance.Form, tuple[float, ...] | None],
        *kernels: Tensor,
    ) -> Any:
        ctx.save_for_backward(weight, bias, site, pairs)
        (ctx.names, ctx.form, ctx.squares), ctx.settings = form, settings
        return tuple(kernel.detach() for kernel in kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        weight, bias, site, pairs = ctx.saved_tensors
        none = (None,) * (4 + len(gradients))
        if not any(ctx.needs_input_grad[:2]):
            return (None, None, *none)
        again = torch.is_grad_enabled()  # somebody wants gradients of these gradients
        with torch.enable_grad():
            weight = _unknown(weight, again)
            bias = None if bias is None else _unknown(bias, again)
            kernels = compile_kernels(weight, site, pairs, bias=bias, **ctx.settings)
            kernels = variance.take(kernels, ctx.form, squares=ctx.squares)
            used = [
                (kernels[name], gradient)
                for name, gradient in zip(ctx.names, gradients, strict=True)
                if gradient is not None and kernels[name].requires_grad
            ]
            outputs, given = zip(*used, strict=True)
            wanted = [weight] if bias is None else [weight, bias]
            result = torch.autograd.grad(
                outputs, wanted, given, allow_unused=True, create_graph=again
            )
        return (*result, *(None,) * (2 - len(result)), *none)


def _unknown(tensor: Tensor, attached: bool) -> Tensor:
    """What gradients are taken with respect to; ``attached`` to the graph of ``tensor``, or not."""
    if attached and tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()
