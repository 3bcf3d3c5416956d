"""Error budgets: the modelled channel of a gate has the infidelity that the device reports."""

from dataclasses import replace

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, average_gate_fidelity
from qiskit_aer.noise import thermal_relaxation_error

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import ECHOED, STATIC_ZZ
from qnad_art.circuits.error_budget import GateFloor, gate_budgets, gate_floors
from qnad_art.circuits.timeline import Operation, append_timeline
from qnad_art.device.catalogue import device_names, load_device
from qnad_art.device.profile import default_crosstalk_model


def in_time(name):
    """The device under the default model in time of its gate."""
    device = load_device(name)
    model = default_crosstalk_model(device.two_qubit_gate)
    return device.changed({}, crosstalk_model=model)


def first_gates(device, width):
    """The device cut down to its first qubits."""
    edges = [edge for edge in device.edges if max(edge.control, edge.target) < width]
    return device.model_copy(update={"qubits": device.qubits[:width], "edges": edges})


def check(device, gates=None):
    budgets = gate_budgets(device, gates)
    for gate in budgets:
        assert abs(gate.coherent) < 1e-12, gate
        wanted = gate.relaxation if gate.at_floor else gate.reported
        if gate.reported < 0.5:  # above, the gate could not be calibrated
            assert gate.modelled == pytest.approx(wanted, abs=1e-9), gate
        assert gate.modelled == pytest.approx(gate.incoherent, abs=1e-9), gate
    return budgets


@pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_sherbrooke", "ibm_torino", "ideal"])
def test_the_first_gates_have_the_infidelity_that_the_device_reports(name):
    device = in_time(name)
    device = first_gates(device, min(8, len(device.qubits)))
    assert len(check(device)) == 2 * len(device.qubits) + len(device.edges)


@pytest.mark.slow
@pytest.mark.parametrize("name", device_names())
def test_gates_of_every_device_have_the_infidelity_that_it_reports(name):
    """Eight gates or more, spread over the qubits and the edges; all would take many minutes."""
    device = in_time(name)
    gates = gate_floors(device)
    chosen = gates[:: len(gates) // 8 | 1]  # sx and x alternate
    assert {gate.gate for gate in chosen} == {"sx", "x", device.two_qubit_gate}
    check(device, chosen)


def test_relaxation_by_formula_is_that_of_aer():
    device = in_time("ibm_nairobi")
    for gate in gate_floors(device):
        channel = None
        for qubit in (device.qubits[index] for index in gate.qubits):
            one = thermal_relaxation_error(qubit.t1, min(qubit.t2, 2 * qubit.t1), gate.seconds)
            channel = one if channel is None else channel.expand(one)
        assert gate.relaxation == pytest.approx(1 - average_gate_fidelity(channel), abs=1e-12)
        assert gate.at_floor == (gate.relaxation > gate.reported)


def test_unknown_times_and_missing_gates_leave_no_relaxation():
    assert {(gate.relaxation, gate.at_floor) for gate in gate_floors(load_device("ideal"))} == {
        (0.0, False)
    }


def test_a_gate_that_could_not_be_calibrated_gets_the_strongest_depolarizing_noise():
    device = first_gates(in_time("ibm_nairobi"), 2)
    qubits = [qubit.model_copy(update={"sx_error": 1.0}) for qubit in device.qubits]
    for gate in check(device.model_copy(update={"qubits": qubits})):
        if gate.gate == "sx":
            assert gate.modelled == pytest.approx(2 / 3, abs=1e-3)


def test_the_floor_is_what_the_model_keeps_and_the_reported_error_what_it_meets():
    gate = GateFloor("cx", (0, 1), 3e-7, reported=0.01, relaxation=0.02)
    assert (gate.at_floor, gate.incoherent) == (True, 0.02)
    better = replace(gate, relaxation=0.005)
    assert (better.at_floor, better.incoherent) == (False, 0.01)


def test_the_coupling_of_the_own_edge_comes_on_top_under_paper():
    """rzz(a) alone has the average infidelity 4/5 sin²(a/2)."""
    device = load_device("ibm_nairobi[crosstalk=paper]")
    for gate in gate_budgets(device):
        if len(gate.qubits) == 1:
            assert gate.coherent == pytest.approx(0, abs=1e-12)
            continue
        angle = np.pi * device.edge_of[gate.qubits].zz_hz * gate.seconds
        assert gate.coherent == pytest.approx(0.8 * np.sin(angle / 2) ** 2, abs=1e-12)
        assert gate.incoherent < gate.modelled < gate.incoherent + gate.coherent


@pytest.mark.parametrize("model", [STATIC_ZZ, ECHOED])
@pytest.mark.parametrize("gate", ["cx", "ecr", "cz"])
def test_neighbours_in_their_ground_state_do_not_disturb_a_gate(model, gate):
    """The block of the unitary in which both neighbours are in |0⟩ is the gate itself."""
    device = load_device("ibm_nairobi").model_copy(update={"two_qubit_gate": gate})
    pair, qubits = (1, 3), (1, 3, 0, 5)
    seconds = device.edge_of[pair].duration
    circuit, ideal = QuantumCircuit(4), QuantumCircuit(2)
    append_timeline(
        circuit,
        DeviceErrors(device.changed({"relaxation": 0.0})),
        [Operation(gate, pair, 0.0, seconds)],
        qubits=qubits,
        until=seconds,
        model=model,
        begun=qubits,
    )
    getattr(ideal, gate)(0, 1)
    unitary = Operator(circuit).data
    np.testing.assert_allclose(unitary[:4, :4], Operator(ideal).data, atol=1e-12)
    assert np.abs(unitary[8:, 8:] - np.kron(np.eye(2), Operator(ideal).data)).max() > 0.01
