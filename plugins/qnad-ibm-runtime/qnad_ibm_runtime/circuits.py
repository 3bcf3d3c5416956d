"""Joint circuits on physical qubits, in the device's own gates: nothing is left to a transpiler."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING, Any

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import IDLE, PARASITIC, Site, product_circuit
from qnad_art.circuits.timed import end_seconds, product_operations
from qnad_art.circuits.timeline import Operation, append_schedule, shifted
from qnad_art.circuits.words import word
from qnad_art.device.profile import DeviceProfile
from qnad_ibm_runtime.packing import Slot, word_of

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.transpiler import Target

REGISTER = "product"
"""Classical register of a joint circuit; bit i is slot i."""


def joint_circuit(
    device: DeviceProfile, target: Target, slots: Sequence[Slot], *, flip: bool
) -> QuantumCircuit:
    """One circuit of several products.

    All products end together: those with less crosstalk wait before they start, in |0⟩, where
    waiting does no harm. The measurement is a joint one, so none disturbs another's gates. Under a
    crosstalk model in time every qubit has explicit delays whenever nothing acts on it; under
    ``paper`` only products have. Nothing stands for the coupling: the hardware has its own.

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
    if crosstalk_model(device).timed:
        operations, until = step_operations(device, slots, angles, flip=flip)
        append_schedule(
            circuit,
            operations,
            qubits=range(target.num_qubits),
            until=until,
            **_grid(target),
        )
        busy = sorted({qubit for operation in operations for qubit in operation.qubits})
    else:
        _append_products(circuit, device, target, slots, angles, flip=flip)
        busy = [site.qubit for site, _ in slots]
    circuit.barrier(*busy)
    circuit.measure([site.qubit for site, _ in slots], bits)
    return circuit


def step_operations(
    device: DeviceProfile, slots: Sequence[Slot], angles: Sequence[Any], *, flip: bool
) -> tuple[list[Operation], float]:
    """Operations of a joint circuit under a crosstalk model in time, and the second of its end.

    Words end together, when the window opens. A product next to a word whose own product is not in
    the circuit runs next to what the neighbour would do for it.

    Args:
        device: gives gates, durations, and waits by its couplings.
        slots: what runs side by side.
        angles: θ₀, φ₀, θ₁, φ₁, … in rad, numbers or parameters.
        flip: an X before the measurement.
    """
    model = crosstalk_model(device)
    parts = []
    for index, (site, count) in enumerate(slots):
        theta, phi = angles[2 * index : 2 * index + 2]
        own = count if site.next_to is None else 0
        parts.append(
            product_operations(device, site, own, theta=theta, phi=phi, model=model, flip=flip)
        )
    # Of each word without its product once, whatever the number of products next to it.
    alone = {word_of(slot): slot for slot in slots if slot[1] and word_of(slot) not in slots}
    for site, count in alone.values():
        made = word(device, site, count, model=model)
        parts.append((made.block(), made.seconds))
    opens = max(window for _, window in parts)
    operations = [o for made, window in parts for o in shifted(made, opens - window)]
    return operations, end_seconds(device, opens, flip=flip)


def _append_products(
    circuit: QuantumCircuit,
    device: DeviceProfile,
    target: Target,
    slots: Sequence[Slot],
    angles: Sequence[Any],
    *,
    flip: bool,
) -> None:
    """Products as under the crosstalk model ``paper``."""
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


def duration(device: DeviceProfile, target: Target, slots: Sequence[Slot], *, flip: bool) -> float:
    """Seconds that a joint circuit takes, measurement included, by the calibrated gate times."""
    timed, until = crosstalk_model(device).timed, 0.0
    if timed:
        _, until = step_operations(device, slots, [0.0] * (2 * len(slots)), flip=flip)
    longest = 0.0
    for site, pairs in slots:
        qubit = device.qubits[site.qubit]
        measurement = target["measure"].get((site.qubit,))
        gates = until
        if not timed:
            gates = 3 * qubit.sx_duration + flip * qubit.x_duration
            gates += block_duration(device, site, pairs)
        longest = max(longest, gates + (getattr(measurement, "duration", None) or 0.0))
    return longest


def block_duration(device: DeviceProfile, site: Site, pairs: int) -> float:
    """Seconds of the crosstalk block alone, under ``paper``."""
    if not pairs:
        return 0.0
    assert site.neighbour is not None
    prepare = 2 * device.qubits[site.neighbour].x_duration if pairs < 0 else 0.0
    return prepare + 2 * abs(pairs) * _gate_duration(device, site)


def _gate_duration(device: DeviceProfile, site: Site) -> float:
    return device.edge_of[site.gate(device)].duration


def _append_delay(circuit: QuantumCircuit, target: Target, seconds: float, qubit: int) -> None:
    """Wait, on the grid of times that the control electronics keep."""
    grid = _grid(target)
    if grid["step"] is None:
        if seconds > 0:
            circuit.delay(seconds, qubit, unit="s")
        return
    ticks = grid["step"] * round(seconds / grid["tick"] / grid["step"])
    if ticks > 0:
        circuit.delay(ticks, qubit, unit="dt")


def _grid(target: Target) -> dict[str, Any]:
    """How delays are given to a backend, as :func:`append_schedule` takes it."""
    if target.dt is None:
        return {"unit": "s", "tick": 1.0, "step": None}
    step = lcm(target.granularity, target.pulse_alignment, target.acquire_alignment)
    return {"unit": "dt", "tick": target.dt, "step": step}
