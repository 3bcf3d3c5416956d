"""Linear and convolution layers whose every product is a noisy quantum circuit."""

from __future__ import annotations

from torch import nn

from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.layers.speed.layer import FastLayer


class QuantumLinear(FastLayer, nn.Linear):
    """:class:`torch.nn.Linear` as quantum circuits; input (…, in), output (…, out)."""


class QuantumConv1d(FastLayer, nn.Conv1d):
    """:class:`torch.nn.Conv1d` as quantum circuits; input (N, C, L) or (C, L)."""


class QuantumConv2d(FastLayer, nn.Conv2d):
    """:class:`torch.nn.Conv2d` as quantum circuits; input (N, C, H, W) or (C, H, W)."""


QUANTUM_CLASSES: dict[type[nn.Module], type[QuantumLayer]] = {
    nn.Linear: QuantumLinear,
    nn.Conv1d: QuantumConv1d,
    nn.Conv2d: QuantumConv2d,
}
"""The quantum-executed class of every plain class."""
