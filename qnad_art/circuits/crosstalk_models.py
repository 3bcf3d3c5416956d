"""Crosstalk models: which coherent errors every gate, wait and preparation brings to which qubits.

``paper``
    Every injected gate is followed by ``rzz(ζt/2)`` between the product's qubit and its neighbour,
    in a frame midway between the neighbour's two states; nothing else is disturbed. An idealisation
    that no device has (the gate's own edge is part of its calibration, and other products feel the
    neighbour too), kept to compare and to load plans made under it. Source: Kundu et al., IEEE HOST
    2024, section III, doi 10.1109/HOST55342.2024.10545406.
``static-zz``
    H = ζ |11⟩⟨11| on every coupled pair at all times, qubit frames calibrated with the neighbours
    in |0⟩, a calibrated gate free of its own edge's coupling. Source: Magesan and Gambetta,
    PRA 101, 052308, 2020, doi 10.1103/PhysRevA.101.052308 (ZZ of two coupled transmons).
``echoed``
    The same, with the X echo on the control inside cx and ecr gates, so that a neighbour of the
    control turns by the average whatever the control's state. Source: Sheldon et al., PRA 93,
    060302, 2016, doi 10.1103/PhysRevA.93.060302 (echoed cross resonance); Sundaresan et al.,
    PRX Quantum 1, 020318, 2020, doi 10.1103/PRXQuantum.1.020318 (spectators of it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qnad_art.device.profile import DeviceProfile
from qnad_art.plugins.discovery import load_plugin


@dataclass(frozen=True)
class CrosstalkModel:
    """A crosstalk model; subclasses may override its methods.

    Args:
        name: under which it is registered and device profiles refer to it.
        timed: whether the coupling of every pair acts at all times; if not, the rule of ``paper``
            holds.
        echoed: whether cx and ecr gates flip their control halfway through.
    """

    name: str
    timed: bool
    echoed: bool = False

    def rate(self, device: DeviceProfile, first: int, second: int) -> float:
        """ζ of two coupled qubits in rad/s, as in H = ζ |11⟩⟨11|."""
        edge = device.edge_of[device.native_gate(first, second)]
        return device.zz_scale * 2 * math.pi * edge.zz_hz

    def echoes(self, gate: str) -> bool:
        """Whether a native two-qubit gate flips its control halfway through."""
        return self.echoed and gate in ("cx", "ecr")


PAPER = CrosstalkModel("paper", timed=False)
STATIC_ZZ = CrosstalkModel("static-zz", timed=True)
ECHOED = CrosstalkModel("echoed", timed=True, echoed=True)


def crosstalk_model(device: DeviceProfile) -> CrosstalkModel:
    """The model that a device profile names.

    Raises:
        UnknownNameError: the model is not registered.
        PluginError: the plugin that registered the model is broken.
    """
    model: CrosstalkModel = load_plugin("crosstalk model", device.crosstalk_model)
    return model
