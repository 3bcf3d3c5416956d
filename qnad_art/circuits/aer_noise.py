"""Aer noise models of the product circuits, built from a device profile.

Gate errors follow Aer's own reading of a device calibration (``basic_device_gate_errors``): thermal
relaxation during the gate, and a depolarizing error chosen such that the average gate infidelity
equals the reported gate error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnad_art.circuits.product import IDLE, Site
from qnad_art.device.profile import DeviceProfile

if TYPE_CHECKING:
    from qiskit.transpiler import Target
    from qiskit_aer.noise import NoiseModel, QuantumError


def site_noise_model(device: DeviceProfile, site: Site, *, readout: bool = True) -> NoiseModel:
    """Noise model for all gates of :func:`~qnad_art.circuits.product.product_circuit` at ``site``.

    The model refers to the circuit's local qubits. ``rz`` is virtual and therefore noise-free. The
    parasitic ``rzz`` is a coherent effect and carries no noise of its own.
    """
    from qiskit_aer.noise import NoiseModel, ReadoutError
    from qiskit_aer.noise.device import basic_device_gate_errors

    model = NoiseModel()
    for name, qubits, error in basic_device_gate_errors(target=_local_target(device, site)):
        model.add_quantum_error(error, name, qubits)
    if site.partner is not None:
        idle = device.edge_of[site.gate(device)].duration
        error = _relaxation(device, site.qubit, idle)
        if error is not None:
            model.add_quantum_error(error, IDLE, [0])
    qubit = device.qubits[site.qubit]
    if readout and (qubit.p1_given_0 or qubit.p0_given_1):
        probabilities = [
            [1 - qubit.p1_given_0, qubit.p1_given_0],
            [qubit.p0_given_1, 1 - qubit.p0_given_1],
        ]
        model.add_readout_error(ReadoutError(probabilities), [0])
    return model


def _local_target(device: DeviceProfile, site: Site) -> Target:
    """The gates and qubits of a site as a Qiskit target, from which Aer reads the errors."""
    from qiskit.circuit import Gate
    from qiskit.circuit.library import CXGate, CZGate, ECRGate, SXGate, XGate
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    qubits = [device.qubits[q] for q in site.qubits]
    times = [QubitProperties(t1=qubit.t1, t2=qubit.t2) for qubit in qubits]
    target = Target(num_qubits=len(qubits), qubit_properties=times)
    one_qubit: tuple[tuple[str, Gate], ...] = (("sx", SXGate()), ("x", XGate()))
    for name, gate in one_qubit:
        entries = {
            (local,): InstructionProperties(
                duration=getattr(qubit, f"{name}_duration"), error=getattr(qubit, f"{name}_error")
            )
            for local, qubit in enumerate(qubits)
        }
        target.add_instruction(gate, entries)
    if site.neighbour is not None:
        two_qubit = {"cx": CXGate, "ecr": ECRGate, "cz": CZGate}[device.two_qubit_gate]()
        edge = device.edge_of[site.gate(device)]
        local_pair = (site.qubits.index(edge.control), site.qubits.index(edge.target))
        entry = InstructionProperties(duration=edge.duration, error=edge.error)
        target.add_instruction(two_qubit, {local_pair: entry})
    return target


def _relaxation(device: DeviceProfile, index: int, duration: float) -> QuantumError | None:
    """Thermal relaxation of an idle qubit; ``None`` if the device has no relaxation."""
    from qiskit_aer.noise import thermal_relaxation_error

    qubit = device.qubits[index]
    t1 = qubit.t1 if qubit.t1 is not None else float("inf")
    t2 = min(qubit.t2 if qubit.t2 is not None else float("inf"), 2 * t1)
    if duration == 0 or (t1 == float("inf") and t2 == float("inf")):
        return None
    return thermal_relaxation_error(t1, t2, duration)
