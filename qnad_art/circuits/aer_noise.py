"""Aer noise models of the product circuits, built from a device profile.

Gate errors follow Aer's own reading of a device calibration (``basic_device_gate_errors``): thermal
relaxation during the gate, and a depolarizing error chosen such that the average gate infidelity
equals the reported gate error.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qnad_art.circuits.product import IDLE, Site
from qnad_art.device.profile import DeviceProfile, Edge

if TYPE_CHECKING:
    from qiskit.circuit import Instruction
    from qiskit.transpiler import Target
    from qiskit_aer.noise import NoiseModel, QuantumError


class DeviceErrors:
    """Errors of a device's gates and waits as Aer takes them, each computed once.

    Args:
        device: whose errors they are.
    """

    def __init__(self, device: DeviceProfile) -> None:
        self.device = device
        self._models: dict[tuple[int, ...], NoiseModel] = {}
        self._gates: dict[tuple[int, ...], list[tuple[str, QuantumError]]] = {}
        self._waits: dict[tuple[int, float], Instruction | None] = {}

    def model(self, qubits: Sequence[int]) -> NoiseModel:
        """Errors of sx, x and the native gates, for a circuit of these physical qubits."""
        from qiskit_aer.noise import NoiseModel

        if (key := tuple(qubits)) in self._models:
            return self._models[key]
        model = self._models[key] = NoiseModel()
        local = {physical: index for index, physical in enumerate(qubits)}
        edges = [(e.control, e.target) for e in self.device.edges]
        for where in (*((q,) for q in qubits), *(e for e in edges if set(e) <= set(qubits))):
            for name, error in self._of(where):
                model.add_quantum_error(error, name, [local[qubit] for qubit in where])
        return model

    def wait(self, qubit: int, seconds: float) -> Instruction | None:
        """Relaxation of a waiting qubit; ``None`` where it never relaxes."""
        from qiskit.quantum_info import SuperOp

        key = qubit, seconds
        if key not in self._waits:
            error = _relaxation(self.device, qubit, seconds)
            self._waits[key] = None if error is None else SuperOp(error).to_instruction()
        return self._waits[key]

    def _of(self, where: tuple[int, ...]) -> list[tuple[str, QuantumError]]:
        """Errors of the gates on one qubit, or of the native gate (control, target)."""
        from qiskit_aer.noise.device import basic_device_gate_errors

        if where not in self._gates:
            edges = [self.device.edge_of[where[0], where[1]]] if where[1:] else []
            found = basic_device_gate_errors(target=_target(self.device, where, edges))
            self._gates[where] = [(n, e) for n, qubits, e in found if len(qubits) == len(where)]
        return self._gates[where]


def site_noise_model(device: DeviceProfile, site: Site, *, readout: bool = True) -> NoiseModel:
    """Noise model for all gates of :func:`~qnad_art.circuits.product.product_circuit` at ``site``.

    The model refers to the circuit's local qubits. ``rz`` is virtual and therefore noise-free. The
    parasitic ``rzz`` is a coherent effect and carries no noise of its own.
    """
    from qiskit_aer.noise import NoiseModel
    from qiskit_aer.noise.device import basic_device_gate_errors

    model = NoiseModel()
    for name, qubits, error in basic_device_gate_errors(target=_local_target(device, site)):
        model.add_quantum_error(error, name, qubits)
    if site.partner is not None:
        idle = device.edge_of[site.gate(device)].duration
        error = _relaxation(device, site.qubit, idle)
        if error is not None:
            model.add_quantum_error(error, IDLE, [0])
    return with_readout(model, device, site.qubit) if readout else model


def with_readout(model: NoiseModel, device: DeviceProfile, index: int) -> NoiseModel:
    """The same model with the readout error of a physical qubit at local qubit 0."""
    from qiskit_aer.noise import ReadoutError

    qubit = device.qubits[index]
    if qubit.p1_given_0 or qubit.p0_given_1:
        probabilities = [
            [1 - qubit.p1_given_0, qubit.p1_given_0],
            [qubit.p0_given_1, 1 - qubit.p0_given_1],
        ]
        model = copy.deepcopy(model)
        model.add_readout_error(ReadoutError(probabilities), [0])
    return model


def _local_target(device: DeviceProfile, site: Site) -> Target:
    edges = [] if site.neighbour is None else [device.edge_of[site.gate(device)]]
    return _target(device, site.qubits, edges)


def _target(device: DeviceProfile, physical: Sequence[int], edges: Sequence[Edge]) -> Target:
    """Some gates and qubits as a Qiskit target, from which Aer reads the errors."""
    from qiskit.circuit import Gate
    from qiskit.circuit.library import CXGate, CZGate, ECRGate, SXGate, XGate
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    qubits = [device.qubits[q] for q in physical]
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
    if edges:
        two_qubit = {"cx": CXGate, "ecr": ECRGate, "cz": CZGate}[device.two_qubit_gate]()
        local = {q: index for index, q in enumerate(physical)}
        pairs = {
            (local[e.control], local[e.target]): InstructionProperties(
                duration=e.duration, error=e.error
            )
            for e in edges
        }
        target.add_instruction(two_qubit, pairs)
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
