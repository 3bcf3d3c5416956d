"""Words in time against formulas, against the master equation, and against Aer step by step."""

import numpy as np
import pytest
from scipy.linalg import expm

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import ECHOED, STATIC_ZZ
from qnad_art.circuits.injection import disturbed, injection_sites
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.circuits.words import LONGEST_WAIT, UNIT_RADIANS, turn, wait_seconds, word
from qnad_art.device.catalogue import load_device
from qnad_art.engines.verify_steps import StepProduct, run_step
from qnad_art.errors import DeviceError, InvalidInputError, UnknownNameError

WAIT = Site(0, 1, kind="wait")
ECHO = Site(0, 1, kind="echo")
SPECTATOR = Site(0, 1, 3)
DIRECT = Site(0, 1)
NOISE = ("relaxation", "gates", "readout")


def device(model, *quiet, **factors):
    silent = dict.fromkeys(quiet, 0.0)
    return load_device("ibm_nairobi").changed({**silent, **factors}, crosstalk_model=model)


def rate(profile, a, b):
    return 2 * np.pi * profile.edge_of[profile.native_gate(a, b)].zz_hz


class TestWithoutNoise:
    """⟨Z⟩ = sin θ · sin(φ + turn), the turn by hand."""

    @pytest.mark.parametrize("model", [STATIC_ZZ, ECHOED])
    @pytest.mark.parametrize("site", [WAIT, ECHO, SPECTATOR, DIRECT])
    @pytest.mark.parametrize("count", [-3, 1, 4])
    def test_a_word_turns_the_phase_and_nothing_else(self, model, site, count):
        profile = device(model.name, *NOISE)
        table = response_table(profile, [site], max_pairs=4, cache=False)
        turned = table.turns[0, count + 4]
        angles = np.array([[0.3, 0.7], [-1.1, 0.2], [1.5, -1.4]])
        found = table.expectation(*angles.T, np.zeros(3, int), np.full(3, count))
        assert found == pytest.approx(
            np.sin(angles[:, 0]) * np.sin(angles[:, 1] + turned), abs=1e-7
        )

    @pytest.mark.parametrize("count", [-9, 9])
    def test_an_echo_cancels_a_detuned_frequency(self, count):
        quiet = device("echoed", *NOISE)
        qubits = [qubit.model_copy(update={"detuning": 20e3}) for qubit in quiet.qubits]
        off = quiet.model_copy(update={"qubits": qubits})
        angles = np.array([[0.3, 0.7], [-1.1, 0.2], [1.5, -1.4]])
        error = {}
        for site in (WAIT, ECHO):
            tables = [response_table(d, [site], max_pairs=9, cache=False) for d in (quiet, off)]
            at = (*angles.T, np.zeros(3, int), np.full(3, count))
            found = [table.expectation(*at) for table in tables]
            error[site] = np.abs(found[0] - found[1]).max()
        # What is left of the echo's is the time of the last sx.
        assert error[ECHO] < 0.01
        assert error[WAIT] > 0.1

    def test_a_wait_turns_for_as_long_as_the_neighbour_is_in_one(self):
        profile = device("static-zz")
        unit = wait_seconds(profile, 0, 1, model=STATIC_ZZ)
        seconds = 5 * unit + profile.qubits[1].x_duration
        assert turn(profile, WAIT, -5, model=STATIC_ZZ) == pytest.approx(
            rate(profile, 0, 1) * seconds
        )
        assert rate(profile, 0, 1) * unit == pytest.approx(UNIT_RADIANS, rel=0.02)

    def test_gates_turn_a_spectator_by_half_where_they_echo(self):
        profile = device("echoed")
        gate = profile.edge_of[profile.native_gate(1, 3)]
        half = rate(profile, 0, 1) * gate.duration
        assert turn(profile, SPECTATOR, -1, model=ECHOED) == pytest.approx(half)
        whole = 2 * half + rate(profile, 0, 1) * profile.qubits[1].x_duration
        assert turn(profile, SPECTATOR, -1, model=STATIC_ZZ) == pytest.approx(whole)

    def test_a_calibrated_gate_contains_its_own_edge(self):
        profile = device("static-zz", *NOISE)
        table = response_table(profile, [DIRECT], max_pairs=3, cache=False)
        assert table.values[0] == pytest.approx(np.tile(table.values[0, 3], (7, 1, 1)), abs=1e-7)

    @pytest.mark.parametrize("site", [WAIT, SPECTATOR])
    def test_the_sign_of_the_count_is_the_sign_of_the_turn(self, site):
        for model in (STATIC_ZZ, ECHOED):
            profile = device(model.name)
            one, other = (turn(profile, site, sign, model=model) for sign in (1, -1))
            assert one == pytest.approx(-other)


def test_relaxation_while_waiting_is_that_of_the_master_equation():
    """dρ/dt with H = ζ|11⟩⟨11|, T1 and T2 of both qubits, against the units of a wait."""
    profile = device("static-zz", "gates", "readout", relaxation=5.0)
    count, unit, x = 8, wait_seconds(profile, 0, 1, model=STATIC_ZZ), profile.qubits[1].x_duration
    sx = profile.qubits[0].sx_duration
    lower, number = np.array([[0, 1], [0, 0]]), np.diag([0.0, 1.0])
    generator = np.zeros((16, 16), complex)

    def add(operator, strength):
        nonlocal generator
        square = operator.conj().T @ operator
        sides = np.kron(np.eye(4), square) + np.kron(square.T, np.eye(4))
        generator += strength * (np.kron(operator.conj(), operator) - sides / 2)

    hamiltonian = rate(profile, 0, 1) * np.kron(number, number)
    generator += -1j * (np.kron(np.eye(4), hamiltonian) - np.kron(hamiltonian.T, np.eye(4)))
    for place, qubit in enumerate(profile.qubits[:2]):
        t2 = min(qubit.t2, 2 * qubit.t1)
        for operator, strength in ((lower, 1 / qubit.t1), (number, 2 / t2 - 1 / qubit.t1)):
            whole = np.kron(operator, np.eye(2)) if place else np.kron(np.eye(2), operator)
            add(whole, strength)
    phi = 0.5
    # On the equator when the block starts; the neighbour in |1⟩ from the middle of its X on.
    state = np.array([np.exp(-0.5j * phi), -1j * np.exp(0.5j * phi)]) / np.sqrt(2)
    rho = np.kron(np.diag([0.0, 1.0]), np.outer(state, state.conj()))
    rho = (expm(generator * (count * unit + x)) @ rho.T.reshape(-1)).reshape(4, 4).T
    reduced = rho[:2, :2] + rho[2:, 2:]
    coherence = 2 * reduced[1, 0] / (-1j * np.exp(1j * phi))
    table = response_table(profile, [WAIT], max_pairs=count, cache=False)
    found = table.values[0, 2 * count, 2, 2] + 1j * table.values[0, 2 * count, 2, 1]
    shrinks = np.exp(-4 * sx / min(profile.qubits[0].t2, 2 * profile.qubits[0].t1))
    assert found == pytest.approx(coherence * shrinks, abs=4e-3)
    assert abs(found) < 0.93  # so that relaxation matters here


def test_a_neighbour_that_decayed_turns_the_products_that_start_after_it():
    late = Site(2, 1, kind="wait", next_to=0)
    noisy = device("static-zz", "gates", "readout", relaxation=10.0)
    values = response_table(noisy, [late], max_pairs=8, cache=False).values[0]
    met, alone = values[16], values[8]
    assert np.abs(met - alone).max() > 1e-3
    quiet = device("static-zz", *NOISE)
    values = response_table(quiet, [late], max_pairs=8, cache=False).values[0]
    assert np.abs(values[16] - values[8]).max() < 1e-7


def test_models_offer_what_they_can_turn():
    profile = device("echoed")
    compute = (0, 2, 3, 4, 6)
    kinds = {
        (s.kind, s.partner is not None, s.next_to is not None)
        for s in injection_sites(profile, compute)
    }
    assert ("wait", False, False) in kinds
    assert ("wait", False, True) in kinds
    first = injection_sites(device("paper"), compute)
    assert all(site.kind == "pairs" and site.next_to is None for site in first)
    assert disturbed(profile, WAIT) == (2, 3)
    assert disturbed(profile, Site(2, 1, 3)) == (0, 5)


def test_a_tunable_coupler_is_no_lever():
    torino = load_device("ibm_torino[crosstalk=static-zz]")
    assert wait_seconds(torino, *next(iter(torino.edge_of)), model=STATIC_ZZ) is None
    assert not [s for s in injection_sites(torino, [0]) if s.kind == "wait"]
    with pytest.raises(InvalidInputError, match="too weak"):
        word(torino, Site(0, torino.neighbours[0][0], kind="wait"), 1, model=STATIC_ZZ)
    assert LONGEST_WAIT == 1e-6


class TestSites:
    @pytest.mark.parametrize("site", [WAIT, SPECTATOR, Site(2, 1, kind="wait", next_to=0), Site(4)])
    def test_come_back_from_json(self, site):
        assert Site.from_json(site.to_json()) == site

    @pytest.mark.parametrize(
        "content", [[], [1, 2, 3, 4], {"qubits": [1, 0], "kind": "x", "next_to": None}]
    )
    def test_that_are_none_are_refused(self, content):
        with pytest.raises((ValueError, KeyError)):
            Site.from_json(content)


class TestSources:
    def test_each_can_be_switched_off_alone(self):
        whole = load_device("ibm_nairobi")
        quiet = load_device("ibm_nairobi[readout=0]")
        assert quiet.qubits[0].p1_given_0 == 0
        assert quiet.qubits[0].t1 == whole.qubits[0].t1
        assert load_device("ibm_nairobi[relaxation=0]").qubits[3].t2 is None
        assert load_device("ibm_nairobi[gates=2]").edges[0].error == 2 * whole.edges[0].error
        assert load_device("ibm_nairobi[zz=0.95]").edges[0].zz_hz == 0.95 * whole.edges[0].zz_hz

    @pytest.mark.parametrize("model", ["paper", "echoed", "static-zz"])
    def test_no_product_feels_the_coupling_but_by_words(self, model):
        """Whole time steps on Aer: all couplings act at all times, also of neighbours at rest."""

        def difference(*step):
            found = [
                run_step(DeviceErrors(device(model, zz=zz)), step, "twirled") for zz in (0.0, 1.0)
            ]
            return np.abs(found[0] - found[1]).max()

        alone = [StepProduct(Site(qubit), 0, 0.4, 0.7) for qubit in (0, 2, 4, 6)]
        assert difference(*alone) < 1e-12
        assert difference(StepProduct(SPECTATOR, 2, 0.4, 0.7), *alone[2:]) > 0.01

    def test_names_say_what_was_changed(self):
        assert load_device("ibm_nairobi[readout=0,crosstalk=echoed]").name == (
            "ibm_nairobi[readout=0,crosstalk=echoed]"
        )
        assert load_device("ibm_nairobi[zz=1.1]*2").name == "ibm_nairobi[zz=1.1]*2"

    def test_the_model_is_part_of_the_hash_but_for_the_first(self):
        hashes = {load_device(f"ibm_nairobi[crosstalk={m}]").hash for m in ("echoed", "static-zz")}
        assert len(hashes) == 2
        before = "f42788d28d7b6d52eb92e529bab600ed741bf8f0630f9b83dc7cedde34ae3973"
        assert load_device("ibm_nairobi[crosstalk=paper]").hash == before
        assert load_device("ibm_nairobi").crosstalk_model == "echoed"
        assert load_device("ibm_torino").crosstalk_model == "static-zz"

    @pytest.mark.parametrize(
        ("name", "error", "text"),
        [
            ("ibm_nairobi[readuot=0]", UnknownNameError, "readout"),
            ("ibm_nairobi[readout]", DeviceError, "factor"),
            ("ibm_nairobi[readout=-1]", DeviceError, "-1"),
            ("ibm_nairobi[crosstalk=none]", UnknownNameError, "static-zz"),
        ],
    )
    def test_what_is_none_is_refused_by_name(self, name, error, text):
        with pytest.raises(error, match=text):
            load_device(name)
