"""Error budget of each native gate: what the device reports, and what the model makes of it.

A reported gate error is taken as average infidelity. The model splits it as Aer does
(``basic_device_gate_errors``): thermal relaxation for the gate's duration, and depolarizing noise
for what is left of the error. The ZZ coupling of the gate's own edge is part of what calibration
made of the gate, so under models in time the coherent part is nil. Under ``paper`` an injected gate
is followed by ``rzz(ζt/2)``, in addition to the reported error.

Where relaxation alone exceeds the reported error, the gate is at its *relaxation floor*: the
relaxation stays and no depolarizing noise is added, so the total is the floor. T1 and T2 are
measured separately from the gate, and fluctuate by tens of percent within hours; shortening the
gate or lengthening T1 to meet its error would contradict the waits, which use the same times. Aer
makes the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site, append_gate
from qnad_art.circuits.timeline import Operation, append_timeline
from qnad_art.device.profile import DeviceProfile

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SuperOp


@dataclass(frozen=True)
class GateFloor:
    """The reported error of a native gate, and the part of it that relaxation makes.

    Args:
        gate: ``sx``, ``x``, ``cx``, ``ecr`` or ``cz``.
        qubits: physical qubits, (control, target) for a two-qubit gate.
        seconds: duration.
        reported: gate error that the device reports; 0 where it reports none.
        relaxation: average infidelity of thermal relaxation alone, for the gate's duration.
    """

    gate: str
    qubits: tuple[int, ...]
    seconds: float
    reported: float
    relaxation: float

    @property
    def at_floor(self) -> bool:
        """Whether relaxation alone exceeds the reported error."""
        return self.relaxation > self.reported

    @property
    def incoherent(self) -> float:
        """Average infidelity that relaxation and depolarizing noise should have together.

        The reported error, or the floor. Depolarizing noise of strength p adds p (1 - r - 1/d) to
        the infidelity r of relaxation in d dimensions, and p is at most d² / (d² - 1). A device
        that reports more than that could not calibrate the gate.
        """
        dimension: int = 2 ** len(self.qubits)
        strongest = dimension**2 / (dimension**2 - 1)
        most = self.relaxation + strongest * (1 - self.relaxation - 1 / dimension)
        return max(self.relaxation, min(self.reported, most))


@dataclass(frozen=True)
class GateBudget(GateFloor):
    """Error budget of a native gate by itself, all neighbours in |0⟩.

    Args:
        coherent: average infidelity of the gate's own coupling alone.
        modelled: average infidelity of the whole channel, computed by Aer.
    """

    coherent: float
    modelled: float


def gate_floors(device: DeviceProfile) -> list[GateFloor]:
    """Reported error and relaxation of each sx, x and two-qubit gate, by formula."""
    gates: list[tuple[str, tuple[int, ...], float, float]] = [
        (name, (index,), getattr(qubit, f"{name}_duration"), getattr(qubit, f"{name}_error"))
        for index, qubit in enumerate(device.qubits)
        for name in ("sx", "x")
    ]
    gates += [
        (device.two_qubit_gate, (edge.control, edge.target), edge.duration, edge.error)
        for edge in device.edges
    ]
    return [
        GateFloor(name, qubits, seconds, error, _relaxation(device, qubits, seconds))
        for name, qubits, seconds, error in gates
    ]


def gate_budgets(
    device: DeviceProfile, gates: Sequence[GateFloor] | None = None
) -> list[GateBudget]:
    """Error budget of each sx, x and two-qubit gate of a device.

    The channels are those of the circuits that the package runs, computed by Aer: about 0.05 s for
    each gate.

    Args:
        device: defines the noise.
        gates: some of :func:`gate_floors`; ``None`` means all.
    """
    from qiskit.quantum_info import Operator, average_gate_fidelity

    errors = DeviceErrors(device)
    budgets = []
    for floor in gate_floors(device) if gates is None else gates:
        circuit, ideal = _alone(errors, floor)
        channels = Operator(circuit), _channel(circuit, errors, floor.qubits)
        coherent, modelled = (1 - average_gate_fidelity(made, Operator(ideal)) for made in channels)
        budgets.append(GateBudget(**vars(floor), coherent=coherent, modelled=modelled))
    return budgets


def _relaxation(device: DeviceProfile, qubits: tuple[int, ...], seconds: float) -> float:
    """1 - F, F = (d P + 1) / (d + 1), P = ∏ (1 + exp(-t/T1) + 2 exp(-t/T2)) / 4.

    P is the process fidelity; average fidelity from it: Nielsen, Phys. Lett. A 303, 249, 2002.
    """
    process = 1.0
    for qubit in (device.qubits[index] for index in qubits):
        t1 = qubit.t1 or math.inf
        t2 = min(qubit.t2 or math.inf, 2 * t1)
        process *= (1 + math.exp(-seconds / t1) + 2 * math.exp(-seconds / t2)) / 4
    dimension: int = 2 ** len(qubits)
    return (1 - process) * dimension / (dimension + 1)


def _alone(errors: DeviceErrors, gate: GateFloor) -> tuple[QuantumCircuit, QuantumCircuit]:
    """One gate as the crosstalk model runs it, and as it should be."""
    from qiskit import QuantumCircuit

    device, model, width = errors.device, crosstalk_model(errors.device), len(gate.qubits)
    circuit, ideal = QuantumCircuit(width), QuantumCircuit(width)
    getattr(ideal, gate.gate)(*range(width))
    if model.timed:
        append_timeline(
            circuit,
            errors,
            [Operation(gate.gate, gate.qubits, 0.0, gate.seconds)],
            qubits=gate.qubits,
            until=gate.seconds,
            model=model,
        )
    elif width == 2:
        append_gate(circuit, device, Site(gate.qubits[0], gate.qubits[1]))
    else:
        circuit = ideal.copy()
    return circuit, ideal


def _channel(circuit: QuantumCircuit, errors: DeviceErrors, qubits: tuple[int, ...]) -> SuperOp:
    """Channel of a circuit on these physical qubits with the noise of its gates, by Aer."""
    from qiskit.quantum_info import SuperOp
    from qiskit_aer import AerSimulator
    from qiskit_aer.library import SaveSuperOp

    saved = circuit.copy()
    saved.append(SaveSuperOp(circuit.num_qubits), saved.qubits)
    simulator = AerSimulator(method="superop", noise_model=errors.model(qubits))
    return SuperOp(simulator.run(saved, shots=1).result().data(0)["superop"])
