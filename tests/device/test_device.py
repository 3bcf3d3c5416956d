"""Device profiles against the backends' own calibration and Aer's own noise models."""

import itertools
import json
import math

import numpy as np
import pytest
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SuperOp
from qiskit_aer.noise import NoiseModel
from qiskit_ibm_runtime.fake_provider import FakeNairobiV2

from qnad_art.circuits.aer_noise import site_noise_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.device.backends import TYPICAL_ZZ_HZ
from qnad_art.device.catalogue import device_names, load_device
from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.errors import ArtifactError, CacheWarning, DeviceError, UnknownNameError


def lost(device):
    """Part of sin(π/2)·sin(π/2) = 1 that the noise of qubit 0 takes."""
    table = response_table(device, [Site(0)], max_pairs=0, cache=False)
    angle, first = np.array([math.pi / 2]), np.array([0])
    return 1 - float(table.expectation(angle, angle, first, first)[0])


def duffing_zz_hz(omega, alpha, coupling, levels=5):
    """ζ/2π in Hz of two coupled transmons by diagonalising their Hamiltonian (rad/ns)."""
    lower = np.diag(np.sqrt(np.arange(1, levels)), 1)
    number = lower.T @ lower
    identity = np.eye(levels)
    single = [w * number + a / 2 * number @ (number - identity) for w, a in zip(omega, alpha)]  # noqa: B905
    exchange = np.kron(lower.T, lower)
    hamiltonian = np.kron(single[0], identity) + np.kron(identity, single[1])
    hamiltonian += coupling * (exchange + exchange.T)
    energies, states = np.linalg.eigh(hamiltonian)

    def energy(first, second):
        return energies[np.argmax(np.abs(states[first * levels + second]))]

    zeta = energy(1, 1) - energy(1, 0) - energy(0, 1) + energy(0, 0)
    return zeta / (2 * math.pi) * 1e9


@pytest.fixture(scope="module")
def reference():
    return NoiseModel.from_backend(FakeNairobiV2())


class TestSnapshots:
    @pytest.mark.parametrize(
        ("name", "qubits", "edges", "gate", "source"),
        [
            ("ibm_nairobi", 7, 12, "cx", "hamiltonian"),
            ("ibm_mumbai", 27, 56, "cx", "hamiltonian"),
            ("ibm_sherbrooke", 127, 144, "ecr", "hamiltonian"),
            ("ibm_torino", 133, 300, "cz", "typical"),
        ],
    )
    def test_size_gate_and_source_of_zz(self, name, qubits, edges, gate, source):
        device = load_device(name)
        assert (device.name, len(device.qubits), device.two_qubit_gate) == (name, qubits, gate)
        assert 0.9 * edges <= len(device.edges) <= edges  # broken gates are left out
        assert all(edge.error < 1 for edge in device.edges)
        assert device.zz_source == source
        assert all(qubit.t1 and qubit.t2 and qubit.sx_duration for qubit in device.qubits)
        if source == "typical":
            assert {edge.zz_hz for edge in device.edges} == {TYPICAL_ZZ_HZ[gate]}

    def test_nairobi_zz_follows_from_its_published_hamiltonian(self, nairobi):
        published = FakeNairobiV2().configuration().hamiltonian["vars"]
        for edge in nairobi.edges:
            i, j = sorted((edge.control, edge.target))
            alpha1, alpha2 = published[f"delta{i}"], published[f"delta{j}"]
            delta = published[f"wq{i}"] - published[f"wq{j}"]
            coupling = published[f"jq{i}q{j}"]
            # -2 J² (α1 + α2) / ((Δ + α1)(α2 - Δ)) in partial fractions.
            zeta = 2 * coupling**2 * (1 / (delta - alpha2) - 1 / (delta + alpha1))
            assert edge.zz_hz == pytest.approx(zeta / (2 * math.pi) * 1e9, rel=1e-12)
            exact = duffing_zz_hz(
                (published[f"wq{i}"], published[f"wq{j}"]), (alpha1, alpha2), coupling
            )
            assert edge.zz_hz == pytest.approx(exact, rel=0.05)
        rates = sorted({edge.zz_hz for edge in nairobi.edges})
        assert len(rates) == 6
        assert rates[0] == pytest.approx(74.5e3, abs=100)
        assert rates[-1] == pytest.approx(176.7e3, abs=100)

    def test_nairobi_holds_the_backend_s_calibration(self, nairobi):
        backend = FakeNairobiV2()
        properties = backend.properties()
        assert nairobi.calibrated == str(properties.last_update_date)
        for index, qubit in enumerate(nairobi.qubits):
            assert qubit.t1 == pytest.approx(properties.t1(index))
            assert qubit.t2 == pytest.approx(properties.t2(index))
            assert qubit.frequency == pytest.approx(properties.frequency(index))
            assert qubit.sx_error == properties.gate_error("sx", index)
            assert qubit.x_duration == pytest.approx(properties.gate_length("x", index))
            assert qubit.readout_duration == pytest.approx(properties.readout_length(index))
            measured = {
                name: properties.qubit_property(index, name)[0]
                for name in ("prob_meas1_prep0", "prob_meas0_prep1")
            }
            assert qubit.p1_given_0 == measured["prob_meas1_prep0"]
            assert qubit.p0_given_1 == measured["prob_meas0_prep1"]
        for (control, target), edge in nairobi.edge_of.items():
            assert edge.error == properties.gate_error("cx", (control, target))
            assert edge.duration == pytest.approx(properties.gate_length("cx", (control, target)))

    def test_names_are_all_loadable_ones(self):
        names = device_names()
        assert {"ideal", "ibm_nairobi", "ibm_torino"} <= set(names)
        assert load_device("fake_nairobi").hash == load_device("ibm_nairobi").hash

    def test_ideal_has_no_noise_and_nairobi_s_coupling(self, nairobi):
        ideal = load_device("ideal")
        assert ideal.neighbours == nairobi.neighbours
        assert set(ideal.qubits) == {Qubit()}
        assert {(edge.error, edge.duration, edge.zz_hz) for edge in ideal.edges} == {(0, 0, 0)}


class TestNoiseModel:
    """Against Aer's own reading of the same backend."""

    @pytest.mark.parametrize("qubit", range(7))
    def test_one_qubit_errors_and_readout(self, nairobi, reference, qubit):
        model = site_noise_model(nairobi, Site(qubit))
        for gate in ("sx", "x"):
            ours = SuperOp(model._local_quantum_errors[gate][(0,)]).data
            theirs = SuperOp(reference._local_quantum_errors[gate][(qubit,)]).data
            np.testing.assert_allclose(ours, theirs, atol=1e-14)
        # Aer takes readout as symmetric; ours keeps both probabilities, whose mean that is.
        ours = model._local_readout_errors[(0,)].probabilities
        theirs = reference._local_readout_errors[(qubit,)].probabilities
        np.testing.assert_allclose((ours + ours[::-1, ::-1]) / 2, theirs)
        known = nairobi.qubits[qubit]
        assert ours[0][1] == known.p1_given_0
        assert ours[1][0] == known.p0_given_1

    def test_two_qubit_errors(self, nairobi, reference):
        for control, target in nairobi.edge_of:
            model = site_noise_model(nairobi, Site(control, target))
            ours = SuperOp(model._local_quantum_errors["cx"][(0, 1)]).data
            theirs = SuperOp(reference._local_quantum_errors["cx"][(control, target)]).data
            np.testing.assert_allclose(ours, theirs, atol=1e-14)

    def test_virtual_gates_and_the_ideal_device_have_no_noise(self, nairobi):
        assert not {"rz", "rzz"} & set(site_noise_model(nairobi, Site(0, 1, 3)).noise_instructions)
        assert site_noise_model(load_device("ideal"), Site(0, 1, 3)).is_ideal()


class TestOtherBackends:
    def test_generic_backend_without_hamiltonian_takes_typical_zz(self):
        backend = GenericBackendV2(4, seed=1)
        device = load_device(backend)
        assert device.zz_source == "typical"
        assert {edge.zz_hz for edge in device.edges} == {TYPICAL_ZZ_HZ["cx"]}
        error = backend.target["measure"][(0,)].error
        assert (device.qubits[0].p1_given_0, device.qubits[0].p0_given_1) == (error, error)

    @pytest.mark.parametrize("backend", [GenericBackendV2(3, seed=1), FakeNairobiV2()])
    def test_given_zz_overrides_every_rate(self, backend):
        device = DeviceProfile.from_backend(backend, zz_hz=12e3)
        assert device.zz_source == "given"
        assert {edge.zz_hz for edge in device.edges} == {12e3}

    def test_backend_without_a_known_two_qubit_gate_is_refused(self):
        backend = GenericBackendV2(3, basis_gates=["rzz", "rz", "sx", "x"], seed=1)
        with pytest.raises(DeviceError, match=r"no cx, ecr or cz.*rzz"):
            load_device(backend)

    def test_backend_without_sx_is_refused(self):
        with pytest.raises(DeviceError, match="sx"):
            load_device(GenericBackendV2(3, basis_gates=["cx", "rz", "h"], seed=1))


class TestJson:
    @pytest.mark.parametrize("name", ["ibm_nairobi", "ideal"])
    def test_round_trip(self, name, tmp_path):
        device = load_device(name)
        device.save(tmp_path / "device.json")
        for again in (
            load_device(tmp_path / "device.json"),
            load_device(f"{tmp_path}/device.json"),
        ):
            assert again == device
            assert again.hash == device.hash

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"qubits": [{"t1": -1.0}]}, "t1"),
            ({"qubits": [{"p1_given_0": 1.5}]}, "p1_given_0"),
            ({"qubits": [{"sx_error": math.nan}]}, "sx_error"),
            ({"qubits": [{"colour": "red"}]}, "colour"),
            ({"edges": [{"control": 0, "target": 9}]}, r"edge \(0, 9\) does not join"),
            ({"edges": [{"control": 0, "target": -1}]}, r"edge \(0, -1\) does not join"),
            ({"edges": [{"control": 1, "target": 1}]}, r"edge \(1, 1\) does not join"),
            ({"edges": [{"control": 0, "target": 1}] * 2}, "listed twice"),
            ({"edges": [{"control": 0, "target": 1, "zz_hz": math.inf}]}, "zz_hz"),
            ({"two_qubit_gate": "swap"}, "two_qubit_gate"),
            ({"zz_scale": 1.1}, "zz_scale"),
            ({"format_version": 2}, "format_version"),
        ],
    )
    def test_bad_values_are_refused_by_name(self, nairobi, change, says):
        with pytest.raises(DeviceError, match=says):
            DeviceProfile.from_dict(nairobi.model_dump(mode="json") | change)

    @pytest.mark.parametrize("content", [[], None, 3, {}])
    def test_other_data_is_refused(self, content):
        with pytest.raises(DeviceError, match="not a valid device profile"):
            DeviceProfile.from_dict(content, source="it")

    @pytest.mark.parametrize("text", ["", "{", "\x00\xff", '{"name": '])
    def test_damaged_file_is_refused(self, text, tmp_path):
        path = tmp_path / "device.json"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ArtifactError, match=r"device\.json"):
            load_device(path)

    def test_missing_file_is_refused(self, tmp_path):
        with pytest.raises(ArtifactError, match="does not exist"):
            load_device(tmp_path / "none.json")

    def test_unknown_name_lists_the_valid_ones_and_the_nearest(self):
        with pytest.raises(UnknownNameError, match=r"Did you mean 'ibm_nairobi'\?.*ideal"):
            load_device("ibm_nairobbi")


class TestScaledNoise:
    def test_probabilities_and_rates_are_multiplied_and_nothing_else(self, nairobi):
        scaled = load_device("ibm_nairobi*0.1")
        assert scaled.name == "ibm_nairobi*0.1"
        for before, after in zip(nairobi.qubits, scaled.qubits, strict=True):
            for name in ("sx_error", "x_error", "p1_given_0", "p0_given_1"):
                assert getattr(after, name) == pytest.approx(0.1 * getattr(before, name))
            for name in ("t1", "t2"):
                assert getattr(after, name) == pytest.approx(10 * getattr(before, name))
            assert (after.sx_duration, after.frequency) == (before.sx_duration, before.frequency)
        for before, after in zip(nairobi.edges, scaled.edges, strict=True):
            assert after.error == pytest.approx(0.1 * before.error)
            assert (after.zz_hz, after.duration) == (before.zz_hz, before.duration)

    def test_no_noise_is_the_ideal_product_and_once_the_noise_is_the_device(self, nairobi):
        assert lost(nairobi.scaled(0)) == pytest.approx(0, abs=1e-12)
        assert nairobi.scaled(1).hash == nairobi.hash
        assert nairobi.scaled(2).hash != nairobi.hash

    def test_small_noise_takes_in_proportion_and_large_noise_more(self, nairobi):
        little, once, much = (lost(nairobi.scaled(factor)) for factor in (0.01, 1, 10))
        assert lost(nairobi.scaled(0.1)) == pytest.approx(10 * little, rel=0.02)
        assert 90 * little < once < 100 * little  # it saturates
        assert once < much <= 1

    def test_readout_never_says_the_opposite(self, nairobi):
        loud = nairobi.scaled(100)
        assert all(0 < q.p1_given_0 <= 0.5 and q.p0_given_1 <= 0.5 for q in loud.qubits)
        assert all(edge.error <= 1 for edge in loud.edges)

    @pytest.mark.parametrize("device", ["ibm_nairobi*x", "ibm_nairobi*-1", "ibm_nairobi*inf"])
    def test_factors_that_make_no_sense(self, device):
        with pytest.raises(DeviceError):
            load_device(device)

    def test_of_a_file(self, nairobi, tmp_path):
        nairobi.save(tmp_path / "mine.json")
        assert load_device(f"{tmp_path / 'mine.json'}*3").hash == nairobi.scaled(3).hash


class TestSymmetricReadout:
    def test_is_that_of_aer(self, reference):
        device = load_device("ibm_nairobi[readout=symmetric]")
        assert device.name == "ibm_nairobi[readout=symmetric]"
        for index in range(7):
            ours = site_noise_model(device, Site(index))._local_readout_errors[(0,)]
            theirs = reference._local_readout_errors[(index,)]
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities)

    def test_changes_nothing_else_and_goes_with_a_factor(self, nairobi):
        device = load_device("ibm_nairobi[readout=0.5,readout=symmetric]")
        assert device.edges == nairobi.edges
        assert load_device(device.name) == device
        for before, after in zip(nairobi.qubits, device.qubits, strict=True):
            mean = (before.p1_given_0 + before.p0_given_1) / 2
            assert after.p1_given_0 == after.p0_given_1 == pytest.approx(mean / 2)
            same = {"p1_given_0": before.p1_given_0, "p0_given_1": before.p0_given_1}
            assert after.model_copy(update=same) == before

    def test_twirled_readout_is_the_same_either_way(self, nairobi):
        symmetric = nairobi.changed({}, symmetric_readout=True)
        tables = [response_table(d, [Site(0)], max_pairs=0) for d in (nairobi, symmetric)]
        np.testing.assert_allclose(tables[0].values, tables[1].values, atol=1e-12)


class TestHash:
    def test_depends_on_physics_only(self, nairobi):
        content = nairobi.model_dump(mode="json")
        renamed = DeviceProfile.from_dict(
            content | {"name": "x", "calibrated": "never", "zz_source": "given"}
        )
        assert renamed.hash == nairobi.hash
        assert len(nairobi.hash) == 64

    def test_every_physical_field_changes_it(self, nairobi):
        content = nairobi.model_dump(mode="json")
        changes = [content | {"zz_scale": 0.5}, content | {"two_qubit_gate": "cz"}]
        for key, kind in (("qubits", Qubit), ("edges", Edge)):
            physical = kind.model_fields.keys() - {"readout_duration"}
            for field, part in itertools.product(physical, (0, 5)):
                parts = [dict(entry) for entry in content[key]]
                if field in ("control", "target"):
                    del parts[part]
                else:
                    parts[part][field] = (parts[part][field] or 1e-7) * 1.01  # none, or unknown
                changes.append(content | {key: parts})
        hashes = {DeviceProfile.from_dict(changed).hash for changed in changes}
        # control and target delete the same edges.
        assert len(hashes | {nairobi.hash}) == len(changes) - 2 + 1

    def test_does_not_depend_on_the_time_that_a_readout_takes(self, nairobi):
        qubits = [{**q.model_dump(), "readout_duration": None} for q in nairobi.qubits]
        assert nairobi.model_copy(update={"qubits": qubits}).hash == nairobi.hash

    def test_is_the_same_after_json(self, nairobi):
        text = json.dumps(nairobi.model_dump(mode="json"))
        assert DeviceProfile.from_dict(json.loads(text)).hash == nairobi.hash

    def test_changed_copy_has_its_own_hash_and_neighbours(self, nairobi):
        assert nairobi.hash
        assert nairobi.neighbours
        changed = nairobi.model_copy(update={"zz_scale": 0.5, "edges": nairobi.edges[:2]})
        assert changed.hash != nairobi.hash
        assert changed.neighbours != nairobi.neighbours


class TestCache:
    def damaged(self, tmp_path, monkeypatch, change):
        monkeypatch.setenv("QNAD_CACHE_DIR", str(tmp_path))
        right = load_device("ibm_nairobi")
        (entry,) = (tmp_path / "device").iterdir()
        entry.write_text(change(entry.read_text()))
        return right

    def test_second_reading_needs_no_backend(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QNAD_CACHE_DIR", str(tmp_path))
        first = load_device("ibm_nairobi")
        monkeypatch.setattr("qnad_art.device.backends.fake_backends", dict)
        assert load_device("ibm_nairobi") == first

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text[: len(text) // 2],
            lambda text: text.replace('"zz_scale": 1.0', '"zz_scale": 0.9'),
            lambda text: text.replace('"hash"', '"hush"'),
            lambda text: "[]",
        ],
    )
    def test_damaged_entries_are_read_anew(self, change, tmp_path, monkeypatch):
        right = self.damaged(tmp_path, monkeypatch, change)
        with pytest.warns(CacheWarning, match="damaged"):
            assert load_device("ibm_nairobi") == right
        assert load_device("ibm_nairobi") == right  # and written anew, without a warning
