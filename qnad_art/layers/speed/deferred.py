"""Outputs of convolutions that are computed when they are first used, by a batch norm if it can.

A convolution that batch norm follows had better compute normalised outputs, which saves a pass over
all of them; but it cannot know who else will read its output. So it hands out a :class:`Deferred`,
which batch norm asks for normalised outputs, and which is the layer's own output to all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_map_only

from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import Kernels
from qnad_art.layers.linear_map import Convolution
from qnad_art.layers.noise_source import NoiseState
from qnad_art.layers.speed.layer import FastLayer
from qnad_art.layers.tracing import is_tracing

Result = TypeVar("Result")


class Deferred(Tensor):
    """The output of ``layer`` for a batch ``x``, not computed yet."""

    layer: FastLayer
    x: Tensor
    output: Tensor | None
    drawn: NoiseState | None
    """State of the noise before normalised outputs were drawn."""
    version: int | None
    """Of ``x`` when the output was put off; without one in inference mode."""

    @classmethod
    def of(cls, layer: FastLayer, x: Tensor, shape: tuple[int, ...]) -> Deferred:
        """In the place of ``layer.compiled(x)``, which has this shape."""
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
        return self.layer.compiled(self.x, kernels)

    def settle(self) -> Tensor:
        """The output, now computed."""
        if self.output is None:
            self._check_input()
        if self.pending:
            self.output = self.layer.compiled(self.x)
        elif self.output is None and self.drawn is not None:
            # With the noise that is in the normalised outputs already.
            self.layer.postpone = None
            with self.layer.noise.resumed(self.x.device, self.drawn):
                self.output = self.layer.compiled(self.x)
        assert self.output is not None
        return self.output

    def _check_input(self) -> None:
        if _version(self.x) != self.version:
            self.layer.postpone = None
            raise InvalidInputError(
                "The input of a convolution was changed in place before the batch norm after it "
                "ran. Run the pass again: this convolution is no longer put off until then."
            )

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        return func(*settled(args), **settled(kwargs or {}))


def postponed(layer: FastLayer, x: Tensor) -> Tensor:
    """What ``layer`` makes of ``x``: deferred, unless it may be needed otherwise.

    No gradient would find its way through what is deferred.
    """
    linear_map = layer.linear_map
    if (
        isinstance(linear_map, Convolution)
        and not torch.is_grad_enabled()
        and layer.noise.in_a_pass
        and type(x) is Tensor
        and x.dtype == layer.weight.dtype
        and x.numel() > 0
        and x.is_contiguous()
        and layer.weight.is_contiguous()
        and may_fold(layer, x)
    ):
        return Deferred.of(layer, x, (len(x), *linear_map.output_shape(x)))
    return layer.compiled(x)


def settled(result: Result) -> Result:
    """``result`` with all that is deferred in it computed."""
    computed: Result = tree_map_only(Deferred, Deferred.settle, result)
    return computed


def may_fold(layer: FastLayer, x: object) -> bool:
    """Whether nobody would notice a batch norm being folded into what ``layer`` makes of ``x``."""
    if not isinstance(x, Tensor) or x.dim() != layer.weight.dim() or is_observed(layer):
        return False
    recorded = is_tracing() or torch.compiler.is_compiling()
    return not recorded and not torch.is_autocast_enabled(x.device.type)


def is_observed(module: nn.Module) -> bool:
    """Whether hooks look at what goes in or comes out of ``module``."""
    own = module._forward_hooks or module._forward_pre_hooks
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(own or backward or modules._has_any_global_hook())


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version
