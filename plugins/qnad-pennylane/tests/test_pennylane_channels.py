"""Every channel against Aer's Python reading of the same calibration, as superoperators."""

import numpy as np
import pennylane as qml
import pytest
from qiskit.quantum_info import SuperOp
from qiskit_aer.noise.device import basic_device_gate_errors

from qnad_art.circuits.aer_noise import _local_target, _relaxation
from qnad_art.circuits.product import Site
from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_pennylane.channels import depolarizing_strength, gate_noise, readout, relaxation

QUBITS = {
    "T2 < T1": Qubit(t1=1e-4, t2=6e-5),
    "T2 = T1": Qubit(t1=1e-4, t2=1e-4),
    "T2 > T1": Qubit(t1=1e-4, t2=1.7e-4),
    "T2 > 2 T1": Qubit(t1=1e-4, t2=3e-4),
    "no T1": Qubit(t2=8e-5),
    "no T2": Qubit(t1=1e-4),
    "neither": Qubit(),
}


def superoperator(operations, wires):
    """Of operations one after another, in Qiskit's order of qubits (wire 0 is the last factor)."""
    order = list(range(wires))[::-1]
    total = np.eye(4**wires, dtype=complex)
    for operation in operations:
        channel = isinstance(operation, qml.operation.Channel)
        kraus = operation.kraus_matrices() if channel else [operation.matrix()]
        full = [qml.math.expand_matrix(k, operation.wires, order) for k in kraus]
        total = sum(np.kron(k.conj(), k) for k in full) @ total
    return total


@pytest.mark.parametrize("qubit", QUBITS.values(), ids=QUBITS)
@pytest.mark.parametrize("duration", [0.0, 3e-8, 5e-6])
def test_relaxation(qubit, duration):
    device = DeviceProfile(name="one", two_qubit_gate="cx", qubits=(qubit,), edges=())
    error = _relaxation(device, 0, duration)
    expected = np.eye(4) if error is None else SuperOp(error).data
    # Aer drops Kraus operators below 1e-8 where T2 > T1: that of pure dephasing near T2 = 2 T1.
    tolerance = 1e-8 if qubit.t2 is None or qubit.t2 > (qubit.t1 or np.inf) else 1e-12
    found = superoperator(relaxation(qubit, 0, duration), 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("qubit", QUBITS.values(), ids=QUBITS)
@pytest.mark.parametrize("error", [0.0, 1e-7, 2e-3, 0.5, 0.95])
def test_gate_errors(qubit, error):
    """One and two qubits; errors below the relaxation's, usual ones, and impossible ones."""
    duration = 4e-7
    one = qubit.model_copy(update={"sx_error": error, "sx_duration": duration})
    device = DeviceProfile(
        name="two",
        two_qubit_gate="cx",
        qubits=(one, Qubit(t1=9e-5, t2=5e-5)),
        edges=(Edge(control=0, target=1, error=error, duration=duration),),
    )
    aer = {
        (name, tuple(qubits)): SuperOp(found).data
        for name, qubits, found in basic_device_gate_errors(
            target=_local_target(device, Site(0, 1))
        )
    }
    for name, wires in (("sx", (0,)), ("cx", (0, 1))):
        qubits = [device.qubits[wire] for wire in wires]
        noise = gate_noise(qubits, wires, error=error, duration=duration)
        expected = aer.get((name, wires), np.eye(4 ** len(wires)))
        np.testing.assert_allclose(
            superoperator(noise, len(wires)), expected, rtol=0, atol=5e-8 if error else 1e-8
        )


@pytest.mark.parametrize("qubits", [1, 2])
def test_average_gate_infidelity_is_the_reported_one(qubits):
    """From the definition: mean over random pure states of 1 - ⟨ψ|E(ψ)|ψ⟩."""
    one, error = Qubit(t1=1e-4, t2=9e-5), 0.03
    noise = superoperator(
        gate_noise([one] * qubits, range(qubits), error=error, duration=3e-7), qubits
    )
    random = np.random.default_rng(0)
    states = random.normal(size=(20_000, 2**qubits, 2)) @ [1, 1j]
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    density = np.einsum("ni,nj->nji", states, states.conj()).reshape(len(states), -1)
    fidelity = np.einsum("ni,ij,nj->n", density.conj(), noise, density).real
    assert abs((1 - fidelity).mean() - error) < 4 * fidelity.std() / np.sqrt(len(states))


def test_errors_that_relaxation_explains_leave_nothing():
    assert depolarizing_strength(2, error=0.0, relaxed=0.999) < 0
    assert depolarizing_strength(1, error=0.0, relaxed=1.0) == 0


@pytest.mark.parametrize("rates", [(0, 0), (0.02, 0.05), (0, 1), (1, 0), (0.7, 0.6), (1, 1)])
def test_readout(rates):
    to_one, to_zero = rates
    operations = readout(Qubit(p1_given_0=to_one, p0_given_1=to_zero), 0)
    found = superoperator(operations, 1)[np.ix_([0, 3], [0, 3])]
    expected = [[1 - to_one, to_zero], [to_one, 1 - to_zero]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
