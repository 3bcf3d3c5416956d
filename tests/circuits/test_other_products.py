"""The two-qubit product and the phase sum: their numbers against circuits built here, on Aer."""

import itertools
import math

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import RZZGate
from qiskit_aer import AerSimulator

from qnad_art.circuits.aer_noise import DeviceErrors, site_noise_model
from qnad_art.circuits.crosstalk_models import ECHOED, STATIC_ZZ
from qnad_art.circuits.parity import parity_response
from qnad_art.circuits.phase_sum import neuron_responses, neuron_turns
from qnad_art.circuits.product import PARASITIC, Site
from qnad_art.circuits.response import response_table
from qnad_art.circuits.timeline import Operation, append_timeline, shifted
from qnad_art.circuits.words import word
from qnad_art.errors import InvalidInputError


def fourier(angle):
    return np.array([1.0, math.cos(angle), math.sin(angle)])


def measured(device, index):
    """⟨Z⟩ that the readout of a qubit gives in |0⟩ and in |1⟩."""
    qubit = device.qubits[index]
    return np.array([1 - 2 * qubit.p1_given_0, 2 * qubit.p0_given_1 - 1])


def joint(circuit, noise, qubits=(0, 1)):
    """Probabilities of the outcomes of two local qubits, the second one's first."""
    circuit.save_probabilities(list(qubits))
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    found = simulator.run(circuit, shots=1).result().data(0)["probabilities"]
    return np.asarray(found).reshape(2, 2)


def encoded(circuit, qubit, first, second):
    """The gates of a product circuit before its block."""
    circuit.sx(qubit)
    circuit.rz(first + math.pi, qubit)
    circuit.sx(qubit)
    circuit.rz(second + math.pi, qubit)


def append_paper_pair(circuit, device, edge, first=0):
    """A direct pair of the model ``paper``; ``first`` is the local qubit of the lower index."""
    low = min(edge.control, edge.target)
    local = {low: first, edge.control + edge.target - low: first + 1}
    for _ in range(2):
        circuit.barrier()
        circuit.cx(local[edge.control], local[edge.target])
        angle = math.pi * edge.zz_hz * edge.duration
        circuit.append(RZZGate(angle, label=PARASITIC), [first, first + 1])


def own_parity(device, theta, phi, pairs, readout):
    """⟨Z⊗Z⟩ with x̂ on qubit 0 and ŵ on qubit 3, direct pairs with qubit 1; model ``paper``."""
    edge = device.edge_of[device.native_gate(3, 1)]
    noise, total = DeviceErrors(device).model((0, 1, 3)), []
    for flips in ((0, 0), (0, 1), (1, 0), (1, 1)) if readout == "twirled" else ((0, 0),):
        circuit = QuantumCircuit(3)
        encoded(circuit, 0, theta, math.pi / 2)
        encoded(circuit, 2, math.pi / 2, phi)
        for _ in range(pairs):
            append_paper_pair(circuit, device, edge, first=1)
        circuit.barrier()
        for qubit, flip in zip((0, 2), flips, strict=True):
            circuit.sx(qubit)
            if flip:
                circuit.x(qubit)
        found = measured(device, 3) @ joint(circuit, noise, (0, 2)) @ measured(device, 0)
        total.append((-1) ** sum(flips) * found)
    return np.mean(total)


@pytest.mark.parametrize("readout", ["twirled", "raw"])
@pytest.mark.parametrize("pairs", [0, 3])
def test_a_parity_is_that_of_the_circuit(pairs, readout, nairobi):
    device = nairobi.changed({}, crosstalk_model="paper")
    response = parity_response(device, 0, Site(3, 1), pairs, readout=readout)
    for theta, phi in np.random.default_rng(pairs).uniform(-math.pi, math.pi, (4, 2)):
        compiled = fourier(theta) @ response @ fourier(phi)
        assert compiled == pytest.approx(own_parity(device, theta, phi, pairs, readout), abs=1e-7)


def gates(device, qubit, first, second, *starts):
    """The operations of a product circuit, its three sx at these times."""
    sx = device.qubits[qubit].sx_duration
    made = [Operation("sx", (qubit,), start, sx) for start in starts]
    made.append(Operation("rz", (qubit,), starts[0] + sx, angle=first + math.pi))
    return [*made, Operation("rz", (qubit,), starts[1] + sx, angle=second + math.pi)]


def parity_in_time(device, model, site, count, theta, phi):
    """⟨Z⊗Z⟩ with x̂ on qubit 1, written out in time; raw readout."""
    errors, right = DeviceErrors(device), math.pi / 2
    window = 3 * max(qubit.sx_duration for qubit in device.qubits)
    early, late = device.qubits[site.qubit].sx_duration, device.qubits[1].sx_duration
    made = word(device, site, count, model=model) if count else None
    opens = 2 * early + made.seconds if made else window - 3 * early
    if made:
        operations = gates(device, site.qubit, right, phi, 0.0, early, opens)
        operations += shifted(made.block(), 2 * early)
        end = opens + window
    else:
        operations = gates(device, site.qubit, right, phi, opens, opens + early, opens + 2 * early)
        end = window
    operations += gates(device, 1, theta, right, *(end - n * late for n in (3, 2, 1)))
    qubits = (1, *site.qubits)
    circuit = QuantumCircuit(len(qubits))
    append_timeline(circuit, errors, operations, qubits=qubits, until=end, model=model)
    found = joint(circuit, errors.model(qubits))
    return measured(device, site.qubit) @ found @ measured(device, 1)


@pytest.mark.parametrize(
    ("model", "site", "count"),
    [(STATIC_ZZ, Site(0), 0), (STATIC_ZZ, Site(3, 5, kind="wait"), -2), (ECHOED, Site(3, 5, 4), 2)],
)
def test_a_parity_of_coupled_qubits_is_that_of_the_circuit(model, site, count, nairobi):
    device = nairobi.changed({}, crosstalk_model=model.name)
    response = parity_response(device, 1, site, count, readout="raw")
    for theta, phi in np.random.default_rng(1).uniform(-math.pi, math.pi, (4, 2)):
        compiled = fourier(theta) @ response @ fourier(phi)
        exact = parity_in_time(device, model, site, count, theta, phi)
        assert compiled == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("model", ["paper", "echoed"])
def test_crosstalk_turns_the_phase_of_a_parity_as_that_of_a_product(model, nairobi):
    """The weight's qubit feels it as in a product; the activation's qubit costs contrast alone."""
    device = nairobi.changed({}, crosstalk_model=model)
    site = Site(3, 5, 4) if model == "echoed" else Site(3, 1)
    table = response_table(device, [site], max_pairs=1)
    product = table.values[0, 2, 2]
    parity = parity_response(device, 0, site, 1)[2]
    assert math.atan2(*parity[1:]) == pytest.approx(math.atan2(*product[1:]), abs=1e-3)
    assert abs(math.atan2(*product[1:])) > 0.05
    assert 0.8 < np.hypot(*parity[1:]) / np.hypot(*product[1:]) < 1


def test_crosstalk_after_the_last_gate_of_a_parity_only_decays(nairobi):
    """Gate pairs between the two qubits commute with the measurement of both: sin φ stays alone."""
    edge = nairobi.edge_of[nairobi.native_gate(0, 1)]
    noise, angles = DeviceErrors(nairobi).model((0, 1)), np.array([0.0, math.pi / 2, math.pi])
    inverse = np.linalg.inv(np.stack([fourier(angle) for angle in angles]))
    found = []
    for pairs in (0, 4):
        expected = np.empty((3, 3))
        for (i, theta), (j, phi) in itertools.product(enumerate(angles), enumerate(angles)):
            circuit = QuantumCircuit(2)
            encoded(circuit, 0, theta, math.pi / 2)
            encoded(circuit, 1, math.pi / 2, phi)
            circuit.sx([0, 1])
            for _ in range(pairs):
                append_paper_pair(circuit, nairobi, edge)
            expected[i, j] = np.array([1, -1]) @ joint(circuit, noise) @ np.array([1, -1])
        found.append(inverse @ expected @ inverse.T)
    before, after = found
    assert abs(before[2, 1]) < 1e-3
    assert abs(after[2, 1]) < 1e-3  # a turn of 4 pairs would make it 0.2
    assert 0.5 * before[2, 2] < after[2, 2] < 0.99 * before[2, 2]


@pytest.mark.parametrize(
    ("activation", "site", "count", "says"),
    [
        (3, Site(3, 1), 1, "so not"),
        (9, Site(3, 1), 1, "one of the 7"),
        (0, Site(3), 1, "count must be 0"),
        (0, Site(3, 1), 999, "max_pairs is 999"),
    ],
)
def test_parities_that_there_cannot_be(activation, site, count, says, nairobi):
    with pytest.raises(InvalidInputError, match=says):
        parity_response(nairobi, activation, site, count)


def own_neuron(device, site, phases, pairs, meant_for):
    """⟨Z⟩ of a phase sum whose gate pairs stand after the phase of one of its weights; raw."""
    edge = device.edge_of[device.native_gate(0, 1)]
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.rz(3 * math.pi / 2, 0)
    circuit.sx(0)
    for index, phase in enumerate(phases):
        circuit.rz(phase, 0)
        for _ in range(pairs * (index == meant_for)):
            append_paper_pair(circuit, device, edge)
    circuit.rz(math.pi, 0)
    circuit.barrier()
    circuit.sx(0)
    circuit.save_probabilities([0])
    noise = site_noise_model(device, site, readout=False)
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    return simulator.run(circuit, shots=1).result().data(0)["probabilities"] @ measured(device, 0)


@pytest.mark.parametrize("pairs", [0, 2])
def test_a_phase_sum_is_that_of_the_circuit_whichever_weight_the_crosstalk_was_for(pairs, nairobi):
    site = Site(0, 1)
    device = nairobi.changed({}, crosstalk_model="paper")
    table = response_table(device, [site], max_pairs=2, readout="raw")
    response = neuron_responses(table)[0, pairs + 2]
    random = np.random.default_rng(pairs)
    for _ in range(2):
        phases = random.uniform(-1, 1, 5) * random.uniform(-1, 1, 5) / 2
        compiled = response @ fourier(phases.sum())
        for meant_for in (0, 2, 4):
            exact = own_neuron(device, site, phases, pairs, meant_for)
            assert compiled == pytest.approx(exact, abs=1e-7)


def test_without_crosstalk_a_phase_sum_is_its_sine_less_contrast(nairobi):
    table = response_table(nairobi, [Site(0)], max_pairs=0)
    assert neuron_turns(table)[0, 0] == pytest.approx(0, abs=1e-3)
    contrast = neuron_responses(table)[0, 0, 2]
    assert 0.8 < contrast < 1


def test_crosstalk_shifts_a_phase_sum_by_the_turn_of_the_coupling(nairobi):
    """A spectator of a gate whose control is the neighbour turns by ζt in each pair."""
    device, site = nairobi.changed({}, crosstalk_model="paper"), Site(0, 1, 2)
    assert site.gate(device) == (1, 2)
    zz, seconds = device.edge_of[device.native_gate(0, 1)].zz_hz, device.edge_of[1, 2].duration
    table = response_table(device, [site], max_pairs=2)
    expected = 2 * math.pi * zz * seconds * np.arange(-2, 3)
    assert neuron_turns(table)[0] == pytest.approx(expected, rel=0.05, abs=3e-3)
