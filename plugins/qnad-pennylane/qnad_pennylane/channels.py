"""From calibration to PennyLane's channels: relaxation, gate errors and readout of a device.

Written from the physics and not from Aer's noise model, which it is there to check: a gate relaxes
its qubits for its duration, and depolarizes them before that as far as the reported average gate
infidelity is larger than that of the relaxation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product
from math import exp, inf, sqrt

import numpy as np
import pennylane as qml
from pennylane.operation import Channel, Operator

from qnad_art.device.profile import Qubit


def gate_noise(
    qubits: Sequence[Qubit], wires: Sequence[int], *, error: float, duration: float
) -> list[Channel]:
    """Noise that follows a gate.

    Args:
        qubits: those that the gate acts on, one or two.
        wires: theirs.
        error: reported average gate infidelity; at most d/(d+1), d = 2 to the number of qubits.
        duration: in s.
    """
    relaxed = 1.0
    for qubit in qubits:
        relaxed *= relaxation_fidelity(qubit, duration)
    strength = depolarizing_strength(len(qubits), error, relaxed)
    noise = [depolarizing(strength, wires)] if strength > 0 else []
    for qubit, wire in zip(qubits, wires, strict=True):
        noise += relaxation(qubit, wire, duration)
    return noise


def relaxation(qubit: Qubit, wire: int, duration: float) -> list[Channel]:
    """Thermal relaxation at zero temperature for ``duration`` seconds; none if it never relaxes."""
    t1, t2 = times(qubit)
    if duration == 0 or t1 == t2 == inf:
        return []
    return [qml.ThermalRelaxationError(0.0, t1, t2, duration, wires=wire)]


def times(qubit: Qubit) -> tuple[float, float]:
    """(T1, T2) in s. T2 above 2 T1, which is unphysical, is taken as 2 T1; unknown is infinite."""
    t1 = inf if qubit.t1 is None else qubit.t1
    return t1, min(inf if qubit.t2 is None else qubit.t2, 2 * t1)


def relaxation_fidelity(qubit: Qubit, duration: float) -> float:
    """Process fidelity of relaxation with the identity: a quarter of its Pauli matrix's trace."""
    t1, t2 = times(qubit)
    return (1 + 2 * exp(-duration / t2) + exp(-duration / t1)) / 4


def depolarizing_strength(qubits: int, error: float, relaxed: float) -> float:
    """λ of (1 - λ) ρ + λ I/d which, after relaxation, gives the average gate infidelity ``error``.

    The process fidelity of both, (1 - λ) relaxed + λ/d², is 1 - error (d + 1)/d. Above
    λ = d²/(d² - 1), where all Pauli errors are alike and nothing is left unharmed, there is none.
    """
    dimension: float = 2**qubits
    wanted = max(1 - error * (dimension + 1) / dimension, 0.0)
    strength = (relaxed - wanted) / (relaxed - dimension**-2)
    return min(strength, dimension**2 / (dimension**2 - 1))


def depolarizing(strength: float, wires: Sequence[int]) -> Channel:
    """(1 - λ) ρ + λ I/d on one or two wires.

    PennyLane has it for one qubit. Two qubits are given the sixteen Pauli operators as Kraus
    operators; fifteen ``PauliError`` one after another are the same, and three times as slow.
    """
    if len(wires) == 1:
        return qml.DepolarizingChannel(min(3 * strength / 4, 1.0), wires=wires)
    paulis = [qml.matrix(pauli(0)) for pauli in (qml.Identity, qml.X, qml.Y, qml.Z)]
    others = 4 ** len(wires)
    kraus = [
        sqrt(strength / others) * reduce(np.kron, word)
        for word in product(paulis, repeat=len(wires))
    ]
    kraus[0] = sqrt(max(1 - strength * (others - 1) / others, 0.0)) * np.eye(2 ** len(wires))
    return qml.QubitChannel(kraus, wires=wires)


def readout(qubit: Qubit, wire: int) -> list[Operator]:
    """Readout error as a channel before an ideal measurement: a chance of 0 and one of 1 instead.

    A readout that is wrong more often than right is one that is right more often, inverted.
    """
    to_one, to_zero = qubit.p1_given_0, qubit.p0_given_1
    if to_one == to_zero == 0:
        return []
    if to_one + to_zero > 1:
        return [qml.X(wire), qml.ResetError(1 - to_one, 1 - to_zero, wires=wire)]
    return [qml.ResetError(to_zero, to_one, wires=wire)]
