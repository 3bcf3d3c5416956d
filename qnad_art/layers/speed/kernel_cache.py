"""Kernels that are compiled once, and again only when anything on which they depend changes.

They are differentiable in the weights nevertheless: a backward pass to the weights compiles them
again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from qnad_art.layers.kernels import Kernels, Products, compile_kernels

BLOCK = 1 << 17
"""Number of weights that are compiled at a time."""

Key = tuple[object, ...]
Value = TypeVar("Value")


class Compiled(NamedTuple):
    """Kernels, and the function of weight and bias that gave them."""

    kernels: Kernels
    function: Callable[[Tensor, Tensor | None], Kernels]


class KernelCache(Generic[Value]):
    """Keeps what was compiled for one layer. Copies of the cache are empty."""

    def __init__(self) -> None:
        self._kept: tuple[Key, Value, Key] | None = None

    def get(self, key: Key, named: Key, compile_them: Callable[[], Value]) -> Value:
        """The value of ``key``.

        ``named`` are the objects whose ids are in the key. The cache holds them, so that no other
        object can get the same id.
        """
        kept = self._kept
        if kept is None or kept[0] != key:
            _count_fused_steps()
            with torch.inference_mode(False):  # Its tensors could not be used for gradients later.
                kept = self._kept = (key, compile_them(), named)
        return kept[1]

    def clear(self) -> None:
        """Forget the kernels."""
        self._kept = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}


def state_of(tensor: Tensor) -> Key:
    """A key that changes with the identity and with the contents of ``tensor``."""
    return id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype, tensor.device


def compile_in_blocks(weight: Tensor, bias: Tensor | None, products: Products) -> Kernels:
    """Do as :func:`compile_kernels`, without gradients, in blocks of outputs to save memory."""
    outputs = max(1, BLOCK // max(weight[0].numel(), 1))
    with torch.no_grad():
        if len(weight) <= outputs:
            return compile_kernels(weight, bias, products)
        whole: Kernels | None = None
        for start in range(0, len(weight), outputs):
            place = slice(start, start + outputs)
            block = compile_kernels(
                weight[place], None if bias is None else bias[place], _at(products, place)
            )
            if whole is None:
                whole = block.map(lambda part: part.new_empty((len(weight), *part.shape[1:])))
            for kernel, part in zip(whole.tensors(), block.tensors(), strict=True):
                kernel[place] = part
    assert whole is not None
    return whole


def differentiable(compiled: Compiled, weight: Tensor, bias: Tensor | None) -> Kernels:
    """Compiled kernels as a function of weight and bias, for gradients."""
    kernels, function = compiled
    return kernels.with_tensors(
        _KernelsOfWeight.apply(weight, bias, function, *kernels.tensors()),
    )


class _KernelsOfWeight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        function: Callable[[Tensor, Tensor | None], Kernels],
        *kernels: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, bias)
        ctx.function = function
        return tuple(kernel.detach() for kernel in kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        weight, bias = ctx.saved_tensors
        again = torch.is_grad_enabled()  # These gradients will be differentiated themselves.
        with torch.enable_grad():
            weight, bias = _variable(weight), None if bias is None else _variable(bias)
            kernels = ctx.function(weight, bias).tensors()
            used = [
                (kernel, gradient)
                for kernel, gradient in zip(kernels, gradients, strict=True)
                if gradient is not None and kernel.requires_grad
            ]
            outputs, given = zip(*used, strict=True)
            wanted = [weight] if bias is None else [weight, bias]
            result = torch.autograd.grad(
                outputs, wanted, given, allow_unused=True, create_graph=again
            )
        return (*result, *(None,) * (3 - len(result) + len(gradients)))


def _variable(tensor: Tensor) -> Tensor:
    """A variable for gradients that does not reach beyond ``tensor``."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _at(products: Products, place: slice) -> Products:
    shots = None if products.shots is None else products.shots[place]
    return products._replace(site=products.site[place], pairs=products.pairs[place], shots=shots)


@cache
def _count_fused_steps() -> None:
    """Have fused optimizers increment the version of the weights that they change.

    Their kernels do not increment it, so :func:`state_of` would not see that a network was trained,
    and its circuits would remain those of the old weights.
    """

    def count(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"] if group.get("fused") else ():
                increment_version(weight)

    register_optimizer_step_post_hook(count)
