"""Joint circuits: the products' physics, timing, and what the devices accept."""

import numpy as np
import pytest
from qiskit.quantum_info import Statevector
from qiskit_ibm_runtime.fake_provider import FakeNairobiV2, FakeSherbrooke, FakeTorino
from qiskit_ibm_runtime.utils import validate_isa_circuits

from qnad_art.circuits.product import Site
from qnad_art.device.catalogue import load_device
from qnad_ibm_runtime.circuits import block_duration, duration, joint_circuit
from qnad_ibm_runtime.packing import pack

SLOTS = ((Site(0, 1), -2), (Site(4, 5, 6), 1))


@pytest.mark.parametrize("flip", [False, True])
def test_multiplies_in_every_slot(flip):
    """Without noise ⟨Z⟩ of slot i is sin θᵢ sin φᵢ; also the order of the parameters."""
    device, target = load_device("ibm_nairobi"), FakeNairobiV2().target
    circuit = joint_circuit(device, target, SLOTS, flip=flip)
    angles = np.array([0.3, 1.1, -0.8, 0.6])
    state = Statevector(circuit.assign_parameters(angles).remove_final_measurements(inplace=False))
    measured = {
        circuit.find_bit(i.clbits[0]).index: circuit.find_bit(i.qubits[0]).index
        for i in circuit.data
        if i.name == "measure"
    }
    assert measured == {0: 0, 1: 4}
    for slot, qubit in measured.items():
        zero, one = state.probabilities([qubit])
        expected = np.sin(angles[2 * slot]) * np.sin(angles[2 * slot + 1])
        assert (one - zero if flip else zero - one) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("fake", [FakeNairobiV2, FakeSherbrooke, FakeTorino])
def test_devices_take_the_circuits_as_they_are(fake, random_products):
    backend = fake()
    device = load_device(backend)
    _, _, sites, site, pairs = random_products(device, 60)
    for packed in pack(device, sites, site, pairs):
        circuit = joint_circuit(device, backend.target, packed.slots, flip=True)
        validate_isa_circuits([circuit], backend.target)
        assert {*circuit.count_ops()} <= {
            *["rz", "sx", "x", "cx", "ecr", "cz", "delay", "barrier", "measure"]
        }
        for instruction in circuit.data:
            if instruction.name == "delay":
                assert instruction.operation.unit == "dt"
                assert instruction.operation.duration % backend.target.pulse_alignment == 0


def test_products_end_together_and_spectators_wait_for_the_gates():
    """Clocks of the qubits: operations wait for the last of theirs, and advance all of them."""
    device, target = load_device("ibm_nairobi"), FakeNairobiV2().target
    slots = ((Site(0, 1), -3), (Site(4, 5, 6), 1), (Site(3), 0))
    circuit = joint_circuit(device, target, slots, flip=True)
    clock, waits, idle = np.zeros(7), {}, []
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        if instruction.name == "barrier":
            waits[tuple(qubits)] = clock[qubits].max() - clock[qubits]
            if qubits == [4, 5, 6]:
                idle.append(waits[4, 5, 6][0])
            clock[qubits] = clock[qubits].max()
        elif instruction.name == "delay":
            clock[qubits] += instruction.operation.duration * target.dt
        elif instruction.name != "measure":
            seconds = target[instruction.name][tuple(qubits)].duration
            clock[qubits] = clock[qubits].max() + seconds
    tick = 16 * target.dt
    assert max(waits[0, 4, 3]) <= tick  # before the joint measurement
    assert max(idle) <= tick  # the product beside a spectator gate has a delay of its own
    estimate = duration(device, target, slots, flip=True) - target["measure"][(0,)].duration
    assert estimate == pytest.approx(clock[0], abs=tick)
    assert block_duration(device, Site(3), 0) == 0
