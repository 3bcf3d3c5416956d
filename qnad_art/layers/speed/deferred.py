"""Outputs that are computed when somebody looks at them, by when it may be known what for.

A layer that batch norm follows would rather compute normalised outputs, a pass over all of them
less; but who else reads its output, it cannot know. So it hands out a :class:`Deferred`, which
batch norm asks for normalised outputs and which for everybody else is the layer's own output.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_map_only

from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import Kernels
from qnad_art.layers.tracing import is_tracing


class Deferred(Tensor):
    """The output of ``layer`` for a batch ``x``, not computed yet."""

    layer: Any
    x: Tensor
    output: Tensor | None
    drawn: Any
    """State of the noise before normalised outputs were drawn."""
    version: int | None
    """Of ``x`` when the output was put off; without one in inference mode."""

    @classmethod
    def of(cls, layer: Any, x: Tensor) -> Deferred:
        """In the place of ``layer.compiled(x)``."""
        shape = (len(x), *output_shape(layer, x))
        result: Deferred = Tensor._make_wrapper_subclass(cls, shape, dtype=x.dtype, device=x.device)
        result.layer, result.x, result.output, result.drawn = layer, x, None, None
        result.version = _version(x)
        return result

    @property
    def pending(self) -> bool:
        """Whether nothing has been drawn of it, with its own kernels or others."""
        return self.output is None and self.drawn is None

    def normalised(self, kernels: Kernels) -> Tensor:
        """The output by other kernels of the layer, from which its own would be found again."""
        self._check_input()
        if self.layer.execution.shots is not None:
            self.drawn = self.layer.noise.state(self.x.device)
        result: Tensor = self.layer.compiled(self.x, kernels)
        return result

    def settle(self) -> Tensor:
        """The output, now computed."""
        if self.output is None:
            self._check_input()
        if self.pending:
            self.output = self.layer.compiled(self.x)
        elif self.output is None:  # with the noise that is in the normalised outputs already
            self.layer.defers = False
            with self.layer.noise.resumed(self.x.device, self.drawn):
                self.output = self.layer.compiled(self.x)
        return self.output

    def _check_input(self) -> None:
        if _version(self.x) != self.version:
            self.layer.defers = False
            raise InvalidInputError(
                "The input of a convolution was changed in place before the batch norm after it "
                "ran. Run the pass again: this convolution is no longer put off until then."
            )

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(Deferred, Deferred.settle, (args, kwargs or {}))
        return func(*args, **kwargs)


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def may_defer(layer: Any, x: Tensor) -> bool:
    """Whether a layer may put off what it computes from ``x``; no gradient would find its way."""
    if not layer.defers or torch.is_grad_enabled() or not layer.noise.in_a_pass:
        return False
    if type(x) is not Tensor or x.dtype != layer.weight.dtype or x.numel() == 0:
        return False
    return x.is_contiguous() and layer.weight.is_contiguous() and may_fold(layer, x)


def may_fold(layer: Any, x: Any) -> bool:
    """Whether nobody would notice a batch norm being folded into what ``layer`` makes of ``x``."""
    if is_tracing() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    return x.dim() == layer.weight.dim() and not watched(layer)


def watched(module: nn.Module) -> bool:
    """Whether hooks look at what goes in or comes out of ``module``."""
    own = module._forward_hooks or module._forward_pre_hooks
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(own or backward or modules._has_any_global_hook())


def output_shape(layer: Any, x: Tensor) -> tuple[int, ...]:
    """Shape of a convolution's output for an image of the batch ``x``."""
    sizes = x.shape[2:]
    if layer.padding == "same":
        return (layer.out_channels, *sizes)
    padding = (0,) * len(sizes) if layer.padding == "valid" else layer.padding
    steps = zip(sizes, padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    spatial = [math.floor((n + 2 * p - d * (k - 1) - 1) / s) + 1 for n, p, d, k, s in steps]
    return (layer.out_channels, *spatial)
