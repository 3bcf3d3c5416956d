"""Kernels that are compiled once, and again when anything that they depend on changes.

With the economies of :mod:`~qnad_art.layers.speed.variance`, and differentiable in the weights all
the same: only where gradients of weights are asked for are kernels compiled again, for these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from qnad_art.layers.kernels import Kernels, Products, compile_kernels
from qnad_art.layers.speed.variance import Economy, Squares, economise, economy_of

BLOCK = 1 << 17
"""Weights compiled at a time."""

Key = tuple[object, ...]


class KernelCache:
    """Keeps the kernels of one layer. Copies of it are empty."""

    def __init__(self) -> None:
        self._kept: tuple[Key, Kernels, Key] | None = None

    def get(
        self, key: Key, named: Callable[[], Key], compile_them: Callable[[], Kernels]
    ) -> Kernels:
        """The kernels of ``key``.

        ``named`` gives the objects whose ids are in the key: holding them keeps their ids from
        being given to others.
        """
        kept = self._kept
        if kept is None or kept[0] != key:
            _count_fused_steps()
            with torch.inference_mode(False):  # its tensors could not be used for gradients later
                kept = self._kept = (key, compile_them(), named())
        return kept[1]

    def clear(self) -> None:
        """Forget the kernels."""
        self._kept = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}


def state_of(tensor: Tensor) -> Key:
    """What changes when a tensor is another, or has other contents."""
    return id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype, tensor.device


def compile_in_blocks(weight: Tensor, bias: Tensor | None, products: Products) -> Kernels:
    """:func:`compile_kernels` without gradients, some outputs at a time to bound the memory."""
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


def differentiable(
    kernels: Kernels,
    weight: Tensor,
    bias: Tensor | None,
    products: Products,
    squares: Squares | None,
) -> Kernels:
    """Kept ``kernels`` as a function of weight and bias, which are compiled again for gradients.

    The arguments are those of :func:`compile_kernels` that gave them, and the ``squares`` of
    :func:`~qnad_art.layers.speed.variance.economise`.
    """
    recipe = _Recipe(products, economy_of(kernels), squares)
    tensors = _KernelsOfWeight.apply(weight, bias, recipe, *kernels.tensors())
    return kernels.with_tensors(tensors)


class _Recipe(NamedTuple):
    """How kernels are compiled again."""

    products: Products
    economy: Economy
    squares: Squares | None

    def compile(self, weight: Tensor, bias: Tensor | None) -> Kernels:
        kernels = compile_kernels(weight, bias, self.products)
        return economise(kernels, self.economy, self.squares)


class _KernelsOfWeight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, recipe: _Recipe, *kernels: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, bias)
        ctx.recipe = recipe
        return tuple(kernel.detach() for kernel in kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        weight, bias = ctx.saved_tensors
        none = (None,) * (1 + len(gradients))
        if not any(ctx.needs_input_grad[:2]):
            return (None, None, *none)
        again = torch.is_grad_enabled()  # somebody wants gradients of these gradients
        with torch.enable_grad():
            weight = _unknown(weight, again)
            bias = None if bias is None else _unknown(bias, again)
            kernels = ctx.recipe.compile(weight, bias).tensors()
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
        return (*result, *(None,) * (2 - len(result)), *none)


def _unknown(tensor: Tensor, attached: bool) -> Tensor:
    """What gradients are taken with respect to; ``attached`` to the graph of ``tensor``, or not."""
    if attached and tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def _at(products: Products, place: slice) -> Products:
    shots = None if products.shots is None else products.shots[place]
    return products._replace(site=products.site[place], pairs=products.pairs[place], shots=shots)


@cache
def _count_fused_steps() -> None:
    """Have fused optimizers count as changes what they do to weights, as all other code does.

    Their kernels leave the version as it is that :func:`state_of` looks at: a network would be
    trained, and the circuits stay those of the weights before.
    """

    def count(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"] if group.get("fused") else ():
                increment_version(weight)

    register_optimizer_step_post_hook(count)
