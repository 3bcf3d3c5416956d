"""The inputs of the quantum-executed layers while the plain network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from qnad_art.layers.quantum_layer import QuantumLayer, quantum_layers
from qnad_art.network.modes import evaluating, setting

Found = TypeVar("Found")


def observe(
    network: nn.Module, batches: Iterable[Tensor], what: Callable[[QuantumLayer, Tensor], Found]
) -> dict[str, list[Found]]:
    """Call ``what(layer, input)`` for every call of every layer.

    The network runs on ``batches`` in eval mode, without circuits and without gradients. The
    results are returned by layer, in the order in which the layers run.
    """
    names = {layer: name for name, layer in quantum_layers(network).items()}
    found: dict[str, list[Found]] = {}

    def record(layer: QuantumLayer, x: Tensor) -> Tensor:
        found.setdefault(names[layer], []).append(what(layer, x))
        return layer.classical(x)

    place = next(iter(network.parameters()), torch.empty(0))
    with torch.no_grad(), evaluating(network), setting(names, engine=record):
        for batch in batches:
            network(batch.to(place.device))
    return found
