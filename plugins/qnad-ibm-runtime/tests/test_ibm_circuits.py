"""Joint circuits: the products' physics, timing, and what the devices accept."""

from copy import copy

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeNairobiV2, FakeSherbrooke, FakeTorino
from qiskit_ibm_runtime.utils import validate_isa_circuits

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.circuits.timeline import Operation, append_timeline
from qnad_art.device.catalogue import load_device
from qnad_ibm_runtime.circuits import block_duration, duration, joint_circuit
from qnad_ibm_runtime.packing import pack

SLOTS = {
    "paper": ((Site(0, 1), -2), (Site(4, 5, 6), 1)),
    "echoed": ((Site(0, 1, kind="wait"), -2), (Site(4, 5, 6), 1)),
    "static-zz": ((Site(0, 1), 2), (Site(4, 5, kind="echo"), -1)),
}
STEPS = {
    "waits of two lengths": (
        (Site(0, 1, kind="wait"), 8),
        (Site(2, 1, kind="wait", next_to=0), 8),
        (Site(4, 5, kind="wait"), -3),
        (Site(6, 5, kind="wait", next_to=4), -3),
    ),
    "an echo": (
        (Site(0, 1, kind="echo"), -3),
        (Site(3, 1, kind="echo", next_to=0), -3),
        (Site(4), 0),
        (Site(6), 0),
    ),
    "pairs": (
        (Site(0, 1, 2), -2),
        (Site(3, 1, 2, next_to=0), -2),
        (Site(6), 0),
    ),
    "pairs on the product's own edge": (
        (Site(0, 1), -2),
        (Site(4), 0),
        (Site(6), 0),
    ),
    "a word without its product": (
        (Site(2, 1, kind="wait", next_to=0), 6),
        (Site(3, 1, kind="wait", next_to=0), 6),
        (Site(4), 0),
    ),
}
"""Time steps on ibm_nairobi with words of every kind and what is next to them."""


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("model", SLOTS)
def test_multiplies_in_every_slot(model, flip):
    """Without noise ⟨Z⟩ of slot i is sin θᵢ sin φᵢ; also the order of the parameters."""
    device, target = load_device(f"ibm_nairobi[crosstalk={model}]"), FakeNairobiV2().target
    circuit = joint_circuit(device, target, SLOTS[model], flip=flip)
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


def schedule(circuit, target):
    """Operations and end of a circuit as hardware runs it: each as soon as its qubits are free.

    None needs to wait for another qubit, so as late as possible is the same.
    """
    clock, operations = np.zeros(circuit.num_qubits), []
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        name, seconds = instruction.name, 0.0
        assert np.ptp(clock[qubits]) < 1e-12
        if name == "measure":
            break
        if name == "delay":
            unit = {"s": 1.0, "dt": target.dt}[instruction.operation.unit]
            seconds = instruction.operation.duration * unit
        elif name not in ("rz", "barrier"):
            seconds = target[name][tuple(qubits)].duration
        angle = float(instruction.operation.params[0]) if name == "rz" else 0.0
        if name not in ("delay", "barrier"):  # what is left of a qubit's time is a wait
            start = float(clock[qubits].max())
            operations.append(Operation(name, tuple(qubits), start, seconds, angle))
        clock[qubits] = clock[qubits].max() + seconds
    return operations, float(clock.max())


@pytest.mark.parametrize("slots", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("grid", [True, False], ids=["on the grid", "no grid"])
def test_with_the_coupling_of_the_device_every_slot_gives_the_compiled_value(slots, grid):
    """The circuit's own schedule, with couplings, relaxation and errors of the device, on Aer.

    What is left is the grid of delays, and that a long wait relaxes at its centre.
    """
    device, target = load_device("ibm_nairobi"), copy(FakeNairobiV2().target)
    if not grid:
        target.dt = None
    sites, counts = zip(*slots, strict=True)
    assert len(pack(device, sites, np.arange(len(slots)), np.array(counts))) == 1
    angles = np.random.default_rng(0).uniform(0.3, 1.3, 2 * len(slots))
    circuit = joint_circuit(device, target, slots, flip=False).assign_parameters(angles)
    operations, until = schedule(circuit, target)
    errors, model = DeviceErrors(device), crosstalk_model(device)
    simulated = QuantumCircuit(7)
    append_timeline(simulated, errors, operations, qubits=range(7), until=until, model=model)
    for site in sites:
        simulated.save_probabilities([site.qubit], label=str(site.qubit))
    simulator = AerSimulator(method="density_matrix", noise_model=errors.model(range(7)))
    data = simulator.run(simulated, shots=1).result().data()
    qubits = [device.qubits[site.qubit] for site in sites]
    signs = [(1 - 2 * qubit.p1_given_0, 2 * qubit.p0_given_1 - 1) for qubit in qubits]
    found = np.sum([data[str(site.qubit)] for site in sites] * np.array(signs), axis=1)
    table = response_table(device, sites, max_pairs=8, readout="raw")
    index = np.arange(len(slots))
    compiled = table.expectation(angles[::2], angles[1::2], index, np.array(counts))
    np.testing.assert_allclose(found, compiled, rtol=0, atol=2e-4 if grid else 5e-5)
    words = np.array([count != 0 and site.next_to is None for site, count in slots])
    plain = table.expectation(angles[::2], angles[1::2], index, 0 * index)
    assert (abs(compiled - plain)[words] > 0.02).all()


@pytest.mark.parametrize("fake", [FakeNairobiV2, FakeSherbrooke, FakeTorino])
def test_devices_take_the_circuits_as_they_are(fake, random_products):
    backend = fake()
    device = load_device(backend)
    _, _, sites, site, pairs = random_products(device, 60, echo=True)
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


def test_under_paper_products_end_together_and_spectators_wait_for_the_gates():
    """Clocks of the qubits: operations wait for the last of theirs, and advance all of them."""
    device, target = load_device("ibm_nairobi[crosstalk=paper]"), FakeNairobiV2().target
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


@pytest.mark.parametrize("slots", STEPS.values(), ids=STEPS)
def test_in_time_all_qubits_end_together_and_the_estimate_is_their_time(slots):
    device, target = load_device("ibm_nairobi"), FakeNairobiV2().target
    circuit = joint_circuit(device, target, slots, flip=True)
    circuit = circuit.assign_parameters(np.ones(2 * len(slots)))
    _, until = schedule(circuit, target)
    estimate = duration(device, target, slots, flip=True) - target["measure"][(0,)].duration
    assert estimate == pytest.approx(until, abs=16 * target.dt)
