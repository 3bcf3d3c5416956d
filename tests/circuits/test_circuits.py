"""Product circuits against qiskit.quantum_info: what they compute, and that no gate is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import Operator, Statevector
from qiskit_aer import AerSimulator

from qnad_art.circuits.aer_noise import site_noise_model
from qnad_art.circuits.product import (
    IDLE,
    PARASITIC,
    Site,
    prepare_neighbour,
    product_circuit,
    zz_angle,
)
from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.engines.aer import AerEngine
from qnad_art.errors import DeviceError, InvalidInputError

ANGLES = st.floats(-2 * np.pi, 2 * np.pi)
GATES = ("cx", "ecr", "cz")
DIRECT, SPECTATOR = Site(0, 1), Site(0, 1, 2)


def line(gate, *, zz_hz=0.0, duration=0.0, error=0.0, directions=("out",)):
    """Three qubits 0-1-2 without noise; "out": gates point away from qubit 0."""
    edges = []
    for a, b in ((0, 1), (1, 2)):
        for pair in [(a, b)] * ("out" in directions) + [(b, a)] * ("in" in directions):
            edges.append(
                Edge(control=pair[0], target=pair[1], zz_hz=zz_hz, duration=duration, error=error)
            )
    return DeviceProfile(
        name="line", two_qubit_gate=gate, qubits=(Qubit(),) * 3, edges=tuple(edges)
    )


def expectation(circuit):
    state = Statevector(circuit)
    return state.probabilities([0]) @ [1, -1]


class TestProduct:
    @settings(max_examples=40)
    @given(ANGLES, ANGLES, st.booleans())
    def test_ideal_expectation_is_the_product_of_sines(self, theta, phi, flip):
        circuit = product_circuit(
            line("cx"), Site(0), 0, theta=theta, phi=phi, flip=flip, measure=False
        )
        sign = -1 if flip else 1
        assert expectation(circuit) == pytest.approx(sign * np.sin(theta) * np.sin(phi), abs=1e-12)

    def test_only_native_gates_and_one_measurement(self, nairobi):
        circuit = product_circuit(nairobi, DIRECT, -2, theta=0.3, phi=0.4, flip=True)
        assert set(circuit.count_ops()) <= {"sx", "rz", "x", "cx", "rzz", "barrier", "measure"}
        assert circuit.count_ops()["measure"] == circuit.num_clbits == 1

    def test_site_without_neighbour_cannot_inject(self, nairobi):
        with pytest.raises(InvalidInputError, match=r"Site\(qubit=0.*has no neighbour"):
            product_circuit(nairobi, Site(0), 1, theta=0.1, phi=0.1)

    def test_uncoupled_neighbour_is_refused(self, nairobi):
        with pytest.raises(DeviceError, match="no two-qubit gate joins qubits 0 and 6"):
            product_circuit(nairobi, Site(0, 6), 1, theta=0.1, phi=0.1)


class TestGatesSurvive:
    @pytest.mark.parametrize("pairs", [-3, -1, 0, 1, 8])
    @pytest.mark.parametrize("site", [DIRECT, SPECTATOR])
    @pytest.mark.parametrize("gate", GATES)
    def test_two_gates_a_pair_also_after_transpilation(self, gate, site, pairs):
        device = line(gate, zz_hz=1e5, duration=3e-7)
        circuit = product_circuit(device, site, pairs, theta=0.3, phi=0.4)
        simulator = AerSimulator(method="density_matrix")
        for version in (circuit, transpile(circuit, simulator, optimization_level=0)):
            counts = version.count_ops()
            assert counts.get(gate, 0) == 2 * abs(pairs)
            assert counts.get("rzz", 0) == 2 * abs(pairs)
            assert counts.get("x", 0) == (2 if pairs < 0 else 0)
            assert (counts["sx"], counts["rz"]) == (3, 2)

    @pytest.mark.parametrize("pairs", [1, -1, 3])
    def test_polarity_flips_the_neighbour_and_back(self, nairobi, pairs):
        circuit = product_circuit(nairobi, DIRECT, pairs, theta=0.3, phi=0.4)
        flipped = [circuit.find_bit(i.qubits[0]).index for i in circuit if i.name == "x"]
        assert flipped == ([1, 1] if pairs < 0 else [])

    @pytest.mark.parametrize("pairs", [-3, 1, 4])
    def test_aer_runs_every_gate(self, pairs):
        """Only the two-qubit gate errs, by depolarizing: the signal shrinks by 1 - 4e/3 a gate."""
        device = line("cx", error=0.03)
        engine = AerEngine(device)
        theta, phi = np.array([0.7]), np.array([-0.4])
        zero = np.zeros(1, dtype=int)
        measured = engine.expectations(theta, phi, [DIRECT], zero, zero + pairs)
        expected = np.sin(theta) * np.sin(phi) * (1 - 4 * 0.03 / 3) ** (2 * abs(pairs))
        np.testing.assert_allclose(measured, expected, atol=1e-12)

    def test_waiting_during_a_spectator_gate_relaxes_the_product_qubit(self, nairobi):
        for gate, idle in ((DIRECT, False), (SPECTATOR, True)):
            site = Site(0, 1, 3 if gate is SPECTATOR else None)
            names = site_noise_model(nairobi, site).noise_instructions
            labels = {i.label for i in product_circuit(nairobi, site, 1, theta=0.1, phi=0.1)}
            assert ("spectator_idle" in names) is idle
            assert ("spectator_idle" in labels) is idle

    @pytest.mark.parametrize("pairs", [-2, 1])
    def test_only_the_product_qubit_s_waiting_costs_signal(self, pairs):
        """Gates are perfect and nothing but qubit 0 decays: by T2 in every spectator gate."""
        waiting = Qubit(t1=50e-6, t2=30e-6)
        device = line("cx", duration=3e-7).model_copy(
            update={"qubits": (waiting, Qubit(), Qubit())}
        )
        theta, phi, zero = np.array([0.7]), np.array([-0.4]), np.zeros(1, dtype=int)
        measured = AerEngine(device).expectations(theta, phi, [SPECTATOR], zero, zero + pairs)
        decay = np.exp(-2 * abs(pairs) * 3e-7 / 30e-6)
        np.testing.assert_allclose(measured, np.sin(theta) * np.sin(phi) * decay, atol=1e-12)

    def test_gates_that_take_no_time_are_not_waited_for(self):
        circuit = product_circuit(line("cx", zz_hz=1e5), SPECTATOR, 3, theta=0.1, phi=0.1)
        assert {IDLE, PARASITIC} & {i.label for i in circuit} == set()

    def test_the_coupling_can_be_told_from_gates_by_its_label(self, nairobi):
        """Hardware must not run it: it happens there anyway."""
        circuit = product_circuit(nairobi, DIRECT, 2, theta=0.1, phi=0.1)
        assert [i.label for i in circuit if i.name == "rzz"] == [PARASITIC] * 4


class TestInjection:
    @pytest.mark.parametrize(("pairs", "flips"), [(-1, 1), (0, 0), (1, 0)])
    def test_only_negative_counts_flip_the_neighbour(self, pairs, flips):
        circuit = QuantumCircuit(2)
        prepare_neighbour(circuit, pairs)
        assert [circuit.find_bit(i.qubits[0]).index for i in circuit] == [1] * flips

    @pytest.mark.parametrize("pairs", [-2, 1, 3])
    @pytest.mark.parametrize("site", [DIRECT, SPECTATOR])
    @pytest.mark.parametrize("direction", ["out", "in"])
    @pytest.mark.parametrize("gate", GATES)
    def test_is_the_identity_without_noise_and_coupling(self, gate, direction, site, pairs):
        device = line(gate, duration=3e-7, directions=(direction,))
        circuit = product_circuit(device, site, pairs, theta=0.3, phi=0.4, measure=False)
        plain = QuantumCircuit(len(site.qubits))
        plain.compose(
            product_circuit(device, Site(0), 0, theta=0.3, phi=0.4, measure=False),
            [0],
            inplace=True,
        )
        assert Operator(circuit).equiv(plain)

    @pytest.mark.parametrize(
        ("gate", "site", "turns"),
        [
            # Between its two CX the neighbour follows the product qubit, so that ZZ is constant.
            ("cx", DIRECT, 1),
            ("cx", SPECTATOR, 2),
            ("cz", DIRECT, 2),
            ("cz", SPECTATOR, 2),
        ],
    )
    def test_turns_the_phase_by_the_coupling_s_angle(self, gate, site, turns):
        device = line(gate, zz_hz=1e5, duration=4e-7)
        angle = 2 * np.pi * 1e5 * 4e-7 / 2  # ζ t / 2 a gate, ζ in rad/s
        assert zz_angle(device, site) == pytest.approx(angle)
        for pairs in (-3, -1, 2):
            circuit = product_circuit(device, site, pairs, theta=np.pi / 2, phi=0.4, measure=False)
            assert expectation(circuit) == pytest.approx(np.sin(0.4 + turns * pairs * angle))

    @pytest.mark.parametrize("pairs", [1, 2, 5])
    @pytest.mark.parametrize("gate", GATES)
    def test_polarity_turns_the_sign_of_the_phase(self, gate, pairs):
        device = line(gate, zz_hz=1e5, duration=4e-7)

        def quadratures(count):
            values = [
                expectation(
                    product_circuit(device, DIRECT, count, theta=np.pi / 2, phi=phi, measure=False)
                )
                for phi in (0.0, np.pi / 2)
            ]
            return np.array(values)

        forward, backward = quadratures(pairs), quadratures(-pairs)
        assert abs(forward[0]) > 0.1
        np.testing.assert_allclose(backward, forward * [-1, 1], atol=1e-12)

    def test_zz_scale_scales_the_angle(self, nairobi):
        half = DeviceProfile.from_dict(nairobi.model_dump() | {"zz_scale": 0.5})
        assert zz_angle(half, DIRECT) == pytest.approx(zz_angle(nairobi, DIRECT) / 2)

    def test_control_is_the_qubit_nearest_to_the_product_where_native(self):
        both = line("cx", directions=("in", "out"))
        inward = line("cx", directions=("in",))
        assert (DIRECT.gate(both), SPECTATOR.gate(both)) == ((0, 1), (1, 2))
        assert (DIRECT.gate(inward), SPECTATOR.gate(inward)) == ((1, 0), (2, 1))
