"""Products under crosstalk models in time, in PennyLane's gates.

Only the schedule is qnad-art's (:func:`~qnad_art.circuits.timed.site_operations`: which operation
starts when). What the device does meanwhile is written here from the Hamiltonian, which is what the
comparison with Aer is about: between any two instants at which something acts, all qubits turn by
H = Σ ζ |11⟩⟨11| + Σ 2π Δf |1⟩⟨1|, one diagonal unitary. A qubit that has not begun needs no rule of
its own: it is in |0⟩, where H is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import pi

import numpy as np
import pennylane as qml
from pennylane.operation import Operator

from qnad_art.circuits.crosstalk_models import CrosstalkModel
from qnad_art.circuits.product import Site
from qnad_art.circuits.timed import end_seconds, site_operations
from qnad_art.circuits.timeline import SHORTEST, Operation
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Array
from qnad_pennylane.channels import gate_noise, relaxation

GATES = {"sx": qml.SX, "x": qml.X, "cx": qml.CNOT, "ecr": qml.ECR, "cz": qml.CZ}

Event = tuple[float, list[Operator]]
"""Seconds, and what acts then."""


def operations_in_time(
    device: DeviceProfile,
    site: Site,
    count: int,
    theta: Array,
    phi: Array,
    *,
    model: CrosstalkModel,
    flip: bool,
) -> list[Operator]:
    """Gates, noise and free evolution of products, up to the measurement; wire 0 is the product's.

    Args:
        device: gives gates, durations, noise and couplings.
        site, count: where, and the signed count of the word.
        theta, phi: angles in rad, shape (n,); PennyLane runs all n at once.
        model: the crosstalk model, one in time.
        flip: an X before the measurement.
    """
    schedule, opens = site_operations(
        device, site, count, theta=theta, phi=phi, model=model, flip=flip
    )
    until = end_seconds(device, opens, flip=flip)
    wires = {qubit: wire for wire, qubit in enumerate(site.qubits if count else (site.qubit,))}
    events = [event for o in schedule for event in _acts(device, o, wires, model)]
    events += _idle(device, schedule, wires, until)
    operations, now = [], 0.0
    for time, acts in [*sorted(events, key=lambda event: event[0]), (until, [])]:
        operations += _evolution(device, schedule, wires, model, now, time)
        operations += acts
        now = time
    return operations


def _acts(
    device: DeviceProfile, operation: Operation, wires: Mapping[int, int], model: CrosstalkModel
) -> Iterator[Event]:
    """An operation acts at its centre; one with an echo flips its control then, and at its end."""
    where = [wires[qubit] for qubit in operation.qubits]
    qubits = [device.qubits[qubit] for qubit in operation.qubits]
    if operation.name == "rz":
        yield operation.centre, [qml.RZ(operation.angle, wires=where)]
    elif operation.name == "delay":
        yield operation.centre, [*relaxation(qubits[0], where[0], operation.duration)]
    else:
        pair = operation.qubits[1:]
        error = (
            device.edge_of[operation.qubits[0], operation.qubits[1]].error
            if pair
            else getattr(qubits[0], f"{operation.name}_error")
        )
        noise = gate_noise(qubits, where, error=error, duration=operation.duration)
        echo = [qml.X(where[0])] if model.echoes(operation.name) else []
        yield operation.centre, [GATES[operation.name](wires=where), *noise, *echo]
        yield operation.end, echo


def _idle(
    device: DeviceProfile, schedule: Sequence[Operation], wires: Mapping[int, int], until: float
) -> Iterator[Event]:
    """Relaxation of the qubits whenever they have nothing to do, each from its first gate on."""
    for qubit, wire in wires.items():
        busy = sorted((o.start, o.end) for o in schedule if qubit in o.qubits)
        starts = [start for start, _ in busy[1:]] + [until]
        for (_, free), start in zip(busy, starts, strict=True):
            if start - free > SHORTEST:
                yield (free + start) / 2, [*relaxation(device.qubits[qubit], wire, start - free)]


def _evolution(
    device: DeviceProfile,
    schedule: Sequence[Operation],
    wires: Mapping[int, int],
    model: CrosstalkModel,
    start: float,
    end: float,
) -> list[Operator]:
    """exp(-i ∫ H dt) from ``start`` to ``end``; a pair in a gate of its own is not coupled."""
    occupied = np.indices((2,) * len(wires)).reshape(len(wires), -1)  # wire, basis state
    phase = np.zeros(occupied.shape[1])
    for qubit, wire in wires.items():
        phase += 2 * pi * device.qubits[qubit].detuning * (end - start) * occupied[wire]
        for other in device.neighbours[qubit]:
            if qubit < other and other in wires:
                own = sum(
                    max(min(o.end, end) - max(o.start, start), 0.0)
                    for o in schedule
                    if set(o.qubits) == {qubit, other}
                )
                both = occupied[wire] * occupied[wires[other]]
                phase += model.rate(device, qubit, other) * (end - start - own) * both
    if not phase.any():
        return []
    return [qml.DiagonalQubitUnitary(np.exp(-1j * phase), wires=range(len(wires)))]
