"""Execution engines: how the products of a layer are really run.

The default needs no engine: layers run *compiled* (:mod:`qnad_art.quantum_layer`). An engine
replaces that for chosen layers, e.g. by circuits on a simulator. Gradients through an engine are
those of the compiled layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Protocol

from qnad_art.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from qnad_art.module import QuantumExecutedModule
    from qnad_art.quantum_layer import QuantumLayer


class Engine(Protocol):
    """Runs one layer: ``engine(layer, x)`` has the layer's output shape."""

    def __call__(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """Output of ``layer`` on ``x``."""


@contextmanager
def run_on(
    module: QuantumExecutedModule, engine: Engine, *, layers: Sequence[str] = ("*",)
) -> Iterator[None]:
    """Context in which the layers whose names match one of the patterns run on ``engine``."""
    chosen = {
        name: layer
        for name, layer in module.layers.items()
        if any(fnmatch(name, pattern) for pattern in layers)
    }
    if not chosen:
        raise UnknownNameError("layer", ", ".join(layers), module.layers)
    before = {name: layer.engine for name, layer in chosen.items()}
    for layer in chosen.values():
        layer.engine = engine
    try:
        yield
    finally:
        for name, layer in chosen.items():
            layer.engine = before[name]
