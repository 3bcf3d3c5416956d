"""Joint circuits on physical qubits, in the device's own gates: nothing is left to a transpiler."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING

from qnad_art.circuits.product import IDLE, PARASITIC, Site, product_circuit
from qnad_art.device.profile import DeviceProfile
from qnad_ibm_runtime.packing import Slot

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.transpiler import Target

REGISTER = "product"
"""Classical register of a joint circuit; bit i is slot i."""


def joint_circuit(
    device: DeviceProfile, target: Target, slots: Sequence[Slot], *, flip: bool
) -> QuantumCircuit:
    """One circuit of several products.

    All products end together: those with fewer pairs wait before they start, in |0⟩, where
    waiting does no harm. The measurement is a joint one, so none disturbs another's gates.

    Args:
        device: gives gates and durations.
        target: the backend's; gives size and the grid of times.
        slots: what runs side by side.
        flip: as for :func:`~qnad_art.circuits.product.product_circuit`.

    Returns:
        Circuit with parameters θ₀, φ₀, θ₁, φ₁, … (in this order in ``circuit.parameters``).
    """
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
    from qiskit.circuit import ParameterVector

    bits = ClassicalRegister(len(slots), REGISTER)
    circuit = QuantumCircuit(QuantumRegister(target.num_qubits), bits)
    angles = ParameterVector("angle", 2 * len(slots))
    longest = max(block_duration(device, *slot) for slot in slots)
    for index, (site, pairs) in enumerate(slots):
        slack = longest - block_duration(device, site, pairs)
        _append_delay(circuit, target, slack, site.qubit)
        product = product_circuit(
            device,
            site,
            pairs,
            theta=angles[2 * index],
            phi=angles[2 * index + 1],
            flip=flip,
            measure=False,
        )
        for instruction in product.data:
            local = [product.find_bit(qubit).index for qubit in instruction.qubits]
            physical = [site.qubits[qubit] for qubit in local]
            if instruction.label == IDLE:
                _append_delay(circuit, target, _gate_duration(device, site), site.qubit)
            elif instruction.label != PARASITIC:  # the hardware's own coupling does that
                circuit.append(instruction.operation, physical)
    measured = [site.qubit for site, _ in slots]
    circuit.barrier(*measured)
    circuit.measure(measured, bits)
    return circuit


def duration(device: DeviceProfile, target: Target, slots: Sequence[Slot], *, flip: bool) -> float:
    """Seconds that a joint circuit takes, measurement included, by the calibrated gate times."""
    longest = 0.0
    for site, pairs in slots:
        qubit = device.qubits[site.qubit]
        measurement = target["measure"].get((site.qubit,))
        gates = (
            3 * qubit.sx_duration + flip * qubit.x_duration + block_duration(device, site, pairs)
        )
        longest = max(longest, gates + (getattr(measurement, "duration", None) or 0.0))
    return longest


def block_duration(device: DeviceProfile, site: Site, pairs: int) -> float:
    """Seconds of the crosstalk block alone."""
    if not pairs:
        return 0.0
    assert site.neighbour is not None
    prepare = 2 * device.qubits[site.neighbour].x_duration if pairs < 0 else 0.0
    return prepare + 2 * abs(pairs) * _gate_duration(device, site)


def _gate_duration(device: DeviceProfile, site: Site) -> float:
    return device.edge_of[site.gate(device)].duration


def _append_delay(circuit: QuantumCircuit, target: Target, seconds: float, qubit: int) -> None:
    """Wait, on the grid of times that the control electronics keep."""
    if target.dt is None:
        if seconds > 0:
            circuit.delay(seconds, qubit, unit="s")
        return
    step = lcm(target.granularity, target.pulse_alignment, target.acquire_alignment)
    ticks = step * round(seconds / target.dt / step)
    if ticks > 0:
        circuit.delay(ticks, qubit, unit="dt")
