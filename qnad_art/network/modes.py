"""Contexts that change how a network runs, and restore it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in eval mode; afterwards every part returns to its own mode."""
    with setting(module.modules(), training=False):
        module.eval()  # A module's own method may do more.
        yield


@contextmanager
def without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Context without gradients of weights: attacks need only ∂/∂x, but ART computes both."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:  # All of them, because another thread may have cleared the flags before.
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def setting(parts: Iterable[Any], **values: Any) -> Iterator[None]:
    """Context in which all ``parts`` have these attributes; afterwards each has its own again."""
    before = [(part, name, getattr(part, name)) for part in parts for name in values]
    for part, name, _ in before:
        setattr(part, name, values[name])
    try:
        yield
    finally:
        for part, name, own in before:
            setattr(part, name, own)
