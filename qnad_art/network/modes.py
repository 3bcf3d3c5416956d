"""Contexts in which a network runs otherwise; afterwards it is as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in eval mode; afterwards every part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Attacks need ∂/∂x only; ART would have the weights' gradients computed as well."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:  # not what each had: that may be what another thread had set by then
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def setting(parts: Iterable[Any], **values: Any) -> Iterator[None]:
    """Context in which all ``parts`` have these attributes; afterwards each has its own again."""
    before = [(part, {name: getattr(part, name) for name in values}) for part in parts]
    for part, _ in before:
        _set(part, values)
    try:
        yield
    finally:
        for part, own in before:
            _set(part, own)


def _set(part: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(part, name, value)
