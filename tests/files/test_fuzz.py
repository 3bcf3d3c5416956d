"""Every loader against thousands of damaged and hostile files: our own errors, and nothing else."""

import hashlib
import io
import json
import time
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import small_runs
import yaml
from art_fixtures import images, plain
from benchmark_results import a_suite
from fuzzing import altered, damaged
from PIL import Image

from qnad_art import QNAD, QuantumExecutedClassifier
from qnad_art.benchmark.records import CurvePoint
from qnad_art.benchmark.run.folder import Failure, Run, read_arrays, write_arrays
from qnad_art.benchmark.run.notes import Notes, note
from qnad_art.benchmark.suites.suite import Suite, load_suite
from qnad_art.benchmark.threats.examples import Examples
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.datasets.dataset import load_dataset
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import ArtifactError, QnadError
from qnad_art.files.artifacts import load_tensors, read_tensors, save_tensors, write_tensors
from qnad_art.files.atomic import checksum, read_json
from qnad_art.models.architectures import build_model
from qnad_art.models.weights import load_model, read_card, save_weights
from qnad_art.placement.plan import CrosstalkPlan
from qnad_art.search.study import search
from qnad_art.training.standard import train

SLOWEST = 10.0
"""Seconds that no file may take, on a busy machine too; they take milliseconds."""


def refused(cases, write, read, *, same=None):
    """How many of the files that ``write`` makes ``read`` refuses, by errors of ours.

    Args:
        same: of formats with a checksum, whether what was read all the same is what was written.
    """
    count = 0
    for case in cases:
        write(case)
        started = time.monotonic()
        try:
            value = read()
        except QnadError:
            count += 1
        else:
            assert same is None or same(value), case
        assert time.monotonic() - started < SLOWEST
    return count


@pytest.fixture(scope="module")
def hardened(tmp_path_factory):
    """A saved classifier with crosstalk, on two qubits: every altered device needs a new table."""
    folder = tmp_path_factory.mktemp("hardened") / "net"
    execution = {"shots": 64, "max_pairs": 3, "compute": [0, 2]}
    defence = QNAD(plain(), fraction=0.2, pairs=2, **execution)
    some = images("digits", "train").take(64)
    defence.fit(some.x, some.y)
    defence(some.x, defence.get_classifier()).save(folder.name, str(folder.parent))
    return folder


class TestPlans:
    def test_damaged(self, hardened, tmp_path):
        path = tmp_path / "plan"
        data = (hardened / "plan.safetensors").read_bytes()
        assert refused(damaged(data, 600), path.write_bytes, lambda: CrosstalkPlan.load(path)) > 599

    def test_hostile_headers_whose_checksum_fits(self, hardened, tmp_path):
        path, kind = tmp_path / "plan", "crosstalk-plan"
        tensors, header = load_tensors(hardened / "plan.safetensors", kind=kind)
        shapes = {
            name: layer.site.shape
            for name, layer in CrosstalkPlan.load(hardened / "plan.safetensors").layers.items()
        }

        def read():
            plan = CrosstalkPlan.load(path)
            assert all(layer.site.shape == shapes[name] for name, layer in plan.layers.items())
            plan.histogram()

        def write(header):
            save_tensors(path, tensors, kind=kind, header=header)

        assert refused(altered(header, 200), write, read) > 80


class TestHardenedFolders:
    def load(self, folder):
        return QuantumExecutedClassifier.load(folder)

    @pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "plan.safetensors"])
    def test_damaged(self, name, hardened):
        path = hardened / name
        whole = path.read_bytes()
        plan = self.load(hardened).plan

        def same(classifier):  # as where a line break of the JSON is now a space
            return classifier.plan.histogram() == plan.histogram()

        try:
            read = lambda: self.load(hardened)  # noqa: E731
            assert refused(damaged(whole, 250), path.write_bytes, read, same=same) > 220
        finally:
            path.write_bytes(whole)
        assert [entry.name for entry in hardened.parent.iterdir()] == ["net"]

    def test_hostile_manifests_whose_checksum_fits(self, hardened):
        path = hardened / "manifest.json"
        whole = path.read_bytes()
        content = json.loads(whole)
        del content["checksum"]

        def write(manifest):
            if isinstance(manifest, dict):
                manifest["checksum"] = checksum(manifest)
            path.write_text(json.dumps(manifest))

        def huge():
            for part, name, value in (
                ("execution", "max_pairs", 10**5),
                ("execution", "max_pairs", 10**9),
                ("architecture", "image_size", 10**5),
                ("architecture", "num_classes", 10**5),
                ("execution", "compute", list(range(10**5))),
            ):
                yield {**content, part: {**content[part], name: value}}

        try:
            assert refused(huge(), write, lambda: self.load(hardened)) == 5
            assert refused(altered(content, 120), write, lambda: self.load(hardened)) > 50
        finally:
            path.write_bytes(whole)


class TestDevices:
    @pytest.fixture
    def path(self, nairobi, tmp_path):
        nairobi.save(tmp_path / "device.json")
        return tmp_path / "device.json"

    def test_damaged(self, path):
        data = path.read_bytes()
        assert refused(damaged(data, 400), path.write_bytes, lambda: load_device(path)) > 250

    def test_hostile(self, path):
        content = json.loads(path.read_bytes())

        def write(value):
            path.write_text(json.dumps(value))

        assert refused(altered(content, 400), write, lambda: load_device(path)) > 250

    @pytest.mark.parametrize(
        "text", ["[" * 200_000, '{"a":' * 50_000, "NaN", "[1e999]", "9" * 10**5]
    )
    def test_bombs(self, text, path):
        path.write_text(text)
        with pytest.raises(QnadError, match="device"):
            load_device(path)

    def test_what_has_no_end(self):
        with pytest.raises(ArtifactError, match="more than"):
            read_json(Path("/dev/zero"))


class TestCaches:
    """A damaged entry is computed anew, with a warning."""

    def test_response_tables(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QNAD_CACHE_DIR", str(tmp_path))
        table = lambda: response_table(DeviceProfile.ideal(), [Site(0)], max_pairs=1)  # noqa: E731
        expected = table().values
        (entry,) = (tmp_path / "response").iterdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same = lambda found: (found.values == expected).all()  # noqa: E731
            cases = damaged(entry.read_bytes(), 60)
            assert refused(cases, entry.write_bytes, table, same=same) == 0

    def test_devices(self, tmp_path, monkeypatch, nairobi):
        monkeypatch.setenv("QNAD_CACHE_DIR", str(tmp_path))
        load_device("ibm_nairobi")
        (entry,) = (tmp_path / "device").iterdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same = lambda found: found.hash == nairobi.hash  # noqa: E731
            cases = damaged(entry.read_bytes(), 25)
            read = lambda: load_device("ibm_nairobi")  # noqa: E731
            assert refused(cases, entry.write_bytes, read, same=same) == 0


class TestWeights:
    @pytest.fixture
    def path(self, tmp_path):
        save_weights(build_model("lenet5"), tmp_path / "weights", card={"accuracy": 0.5})
        return tmp_path / "weights"

    def test_damaged(self, path):
        data = path.read_bytes()
        whole = load_model(path).state_dict()

        def same(model):
            return all((whole[name] == value).all() for name, value in model.state_dict().items())

        # Without the name of its checksum a file is one of an earlier version, which has none.
        cases = [case for case in damaged(data, 420) if b'"sha256"' in case]
        assert len(cases) > 300
        assert refused(cases, path.write_bytes, lambda: load_model(path), same=same) > (
            len(cases) - 5
        )
        assert refused(damaged(data, 100), path.write_bytes, lambda: read_card(path)) > 95

    def test_hostile_metadata(self, path):
        model = build_model("lenet5")

        def write(value):
            text = json.dumps(value)
            metadata = {"qnad_art": "weights.1", "architecture": text, "card": text}
            safetensors.torch.save_file(model.state_dict(), path, metadata)

        architecture = asdict(model.architecture)
        assert refused(altered(architecture, 200), write, lambda: load_model(path)) > 190
        gigantic = ({**architecture, size: 10**5} for size in ("image_size", "num_classes"))
        assert refused(gigantic, write, lambda: load_model(path)) == 2

    def test_those_of_before_checksums_load(self, path):
        model = load_model(path)
        tensors, metadata = read_tensors(path)
        del metadata["sha256"]
        safetensors.torch.save_file(tensors, path, metadata)
        before = load_model(path).state_dict()
        assert all((before[name] == value).all() for name, value in model.state_dict().items())


class TestCheckpoints:
    def test_of_training(self, tmp_path):
        path = tmp_path / "run"
        small_runs.interrupt_training(path)

        def resume():
            settings = small_runs.TRAINING
            train(small_runs.lenet(), small_runs.blobs(), settings, checkpoint=path, resume=True)

        tensors, metadata = read_tensors(path)
        assert refused(damaged(path.read_bytes(), 25), path.write_bytes, resume) == 25
        runs = altered(json.loads(metadata["run"]), 25)

        def write(run):
            write_tensors(path, tensors, {**metadata, "run": json.dumps(run)})

        assert refused(runs, write, resume) > 20

    def test_of_tuning(self, tmp_path):
        path = tmp_path / "run"
        settings = {"epochs": 1, "checkpoint": path}
        small_runs.tuning(**settings).run()
        tensors, header = load_tensors(path, kind="tuning-checkpoint")
        tuning = small_runs.tuning(resume=True, **settings)
        assert refused(damaged(path.read_bytes(), 60), path.write_bytes, tuning.run) > 58

        def write(header):
            save_tensors(path, tensors, kind="tuning-checkpoint", header=header)

        assert refused(altered(header, 60), write, tuning.run) > 50

    def test_of_a_search(self, tmp_path):
        path = tmp_path / "study.db"
        settings = replace(small_runs.SEARCH, storage=path, trials=1)
        small_runs.searched(settings)
        data = path.read_bytes()
        some = images("digits", "train").take(80)
        judged = []

        def go_on():
            # What a page that nobody reads holds is SQLite's own affair.
            search(plain(), some.x, some.y, settings, on_trial=judged.append)

        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            patch.setattr("qnad_art.search.study._judge", _no_time_to_judge)
            assert refused(damaged(data, 20), path.write_bytes, go_on) > 4


def _no_time_to_judge(*arguments):
    raise ArtifactError("the trial is gone, and would be made anew")


class TestRuns:
    @pytest.fixture
    def run(self, tmp_path):
        suite = {"name": "t", "data": "digits", "models": ["lenet5"], "defences": ["none"]}
        results = a_suite()[:3]
        cells = {result.key: result.cell for result in results}
        run = Run.begin(tmp_path / "run", Suite.model_validate(suite), cells)
        for result in results:
            run.append(result)
        run.set_failures([Failure(key="0" * 24, cell=results[0].cell, reason="no memory")])
        return run

    def read(self, folder):
        run = Run.open(folder)
        results = run.results()
        assert all(run.examples(result.key) is None for result in results)
        outcomes = [(r.correct.unpack().sum(), r.votes.unpack().sum()) for r in results]
        return run.suite, run.cells, results, outcomes, run.failures()

    @pytest.mark.parametrize(
        ("name", "least"), [("suite.json", 250), ("results.jsonl", 200), ("failures.json", 200)]
    )
    def test_damaged(self, name, least, run):
        suite, cells, results, _, _ = self.read(run.folder)
        path = run.folder / name

        def same(found):
            # Half a last line is left out: that cell is measured again.
            whole = len(found[2]) == len(results) or name == "results.jsonl"
            return (
                found[:2] == (suite, cells)
                and whole
                and all(result in results for result in found[2])
            )

        read = lambda: self.read(run.folder)  # noqa: E731
        cases = damaged(path.read_bytes(), 300)
        assert refused(cases, path.write_bytes, read, same=same) > least

    @pytest.mark.parametrize("name", ["suite.json", "results.jsonl", "failures.json"])
    def test_hostile(self, name, run):
        path = run.folder / name
        content = json.loads(
            path.read_text().splitlines()[0] if name[-1] == "l" else path.read_text()
        )

        def write(value):
            if isinstance(value, dict) and value.pop("sha256", None):
                value["sha256"] = checksum(value)
            path.write_text(json.dumps(value) + "\n")

        read = lambda: self.read(run.folder)  # noqa: E731
        assert refused(altered(content, 200), write, read) > 60

    @pytest.mark.parametrize("key", ["../../thesis", "/tmp/thesis", "..", "a/b", "a\\b", ""])
    def test_examples_are_read_from_the_run_s_folder_only(self, key, run):
        content = json.loads((run.folder / "results.jsonl").read_text().splitlines()[0])
        del content["sha256"]
        (run.folder / "results.jsonl").write_text(json.dumps({**content, "key": key}) + "\n")
        with pytest.raises(ArtifactError, match="line 1 is not a result"):
            run.results()

    def test_those_of_before_checksums_are_read(self, run):
        expected = self.read(run.folder)
        for name in ("suite.json", "results.jsonl"):
            path = run.folder / name
            lines = path.read_text().splitlines() if name[-1] == "l" else [path.read_text()]
            contents = [json.loads(line) for line in lines]
            assert all(content.pop("sha256") for content in contents)
            path.write_text("".join(json.dumps(content) + "\n" for content in contents))
        assert self.read(run.folder) == expected

    def test_a_changed_digit_of_a_figure_is_noticed(self, run):
        path = run.folder / "results.jsonl"
        path.write_text(path.read_text().replace('"seconds": 1.25', '"seconds": 1.26', 1))
        with pytest.raises(ArtifactError, match="line 1 fails its checksum"):
            run.results()


class TestExamples:
    @pytest.fixture
    def path(self, tmp_path):
        points = (CurvePoint(samples=1, gradients="true", accuracy=0.5),)
        made = Examples(np.full((4, 1, 8, 8), 0.5, np.float32), curve=points, gradients=8)
        write_arrays(tmp_path / "examples.npz", made.arrays())
        return tmp_path / "examples.npz"

    def read(self, path):
        return Examples.from_arrays(read_arrays(path))

    def test_damaged(self, path):
        whole = self.read(path)

        def same(found):
            return (found.x == whole.x).all() and replace(found, x=whole.x) == whole

        cases = damaged(path.read_bytes(), 600)
        assert refused(cases, path.write_bytes, lambda: self.read(path), same=same) > 550

    def test_hostile_records(self, path):
        record = json.loads(str(read_arrays(path)["record"]))

        def write(value):
            x = np.zeros((2, 1, 8, 8), np.float32)
            write_arrays(path, {"x_adv": x, "record": np.array(json.dumps(value))})

        assert refused(altered(record, 200), write, lambda: self.read(path)) > 150

    @pytest.mark.parametrize(
        "arrays",
        [
            {},
            {"record": np.array("{}")},
            {"x_adv": np.zeros(2), "record": np.array("[" * 10**5)},
            {"x_adv": np.array(["x"]), "record": np.array("{}")},
        ],
    )
    def test_what_is_no_examples(self, arrays):
        with pytest.raises(ArtifactError, match="not adversarial examples"):
            Examples.from_arrays(arrays)

    def test_nothing_is_unpickled(self, path):
        np.savez(path, x_adv=np.array([_Touches(path.parent / "pwned")], dtype=object))
        with pytest.raises(ArtifactError, match="allow_pickle"):
            read_arrays(path)
        assert not (path.parent / "pwned").exists()

    def test_shapes_that_no_file_can_hold(self, path):
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)}
        np.lib.format.write_array_header_1_0(buffer, header)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_adv.npy", buffer.getvalue() + b"\0" * 64)
        with pytest.raises(ArtifactError, match="damaged"):
            read_arrays(path)


class _Touches:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestSuites:
    def test_damaged(self, tmp_path):
        path = tmp_path / "suite.yaml"
        cases = damaged(small_runs.SUITE.encode(), 150)
        assert refused(cases, path.write_bytes, lambda: load_suite(path)) > 100

    def test_hostile(self, tmp_path):
        path = tmp_path / "suite.yaml"
        cases = altered(yaml.safe_load(small_runs.SUITE), 100)
        write = lambda value: path.write_text(json.dumps(value))  # noqa: E731
        assert refused(cases, write, lambda: load_suite(path)) > 70

    BOMBS = (
        *("[" * 90_000, "{a: " * 20_000, "- " * 40_000, "? " * 40_000, "a: " + "9" * 90_000),
        *("- 1\n" * 5_000, "---\n" * 20_000, "a: &a [1]\nb: [*a]", "a: " + "1" * 9000 + ".5"),
        *("!!python/object/apply:os.system [id]", "!!binary aGk=", "<<: {a: 1}", "\x00", "a: \x1b"),
    )

    def test_bombs(self, tmp_path):
        path = tmp_path / "suite.yaml"
        cases = [text.encode() for text in self.BOMBS] + [b"\xff\xfe" * 50, b"a" * 200_000]
        assert refused(cases, path.write_bytes, lambda: load_suite(path)) == len(cases)


class TestImages:
    @pytest.mark.parametrize(("suffix", "least"), [("", 250), (".gz", 390)])
    def test_damaged_idx_files(self, suffix, least, tmp_path):
        small_runs.write_mnist(tmp_path, suffix=suffix)
        path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
        read = lambda: load_dataset("mnist", "test", data_dir=tmp_path)  # noqa: E731
        assert refused(damaged(path.read_bytes(), 400), path.write_bytes, read) > least

    def test_damaged_zips(self, tmp_path):
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, name in enumerate(("train/a/1.png", "test/a/1.png", "test/b/1.jpg")):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "jpeg" if name.endswith("jpg") else "png")
                archive.writestr(name, buffer.getvalue())
        whole = load_dataset(str(path), "test")

        def same(data):
            return data.x.shape[1:] == whole.x.shape[1:]

        cases = damaged(path.read_bytes(), 400)
        assert refused(cases, path.write_bytes, lambda: load_dataset(str(path), "test"), same=same)
        assert list(tmp_path.iterdir()) == [path]

    def test_names_that_lead_out_of_a_zip(self, tmp_path):
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("../../train/a/1.png", "/test/a/1.png", "test/../../1.png"):
                archive.writestr(name, b"anything")
        with pytest.raises(QnadError, match="holds no test"):
            load_dataset(str(path), "test")
        assert list(tmp_path.iterdir()) == [path]


class TestNotes:
    def test_damaged_notes_of_workers_are_lines_or_nothing(self, tmp_path):
        with Notes(tmp_path) as notes:
            note(tmp_path, "k", "half of it")
            path = tmp_path / "progress" / "k.jsonl"
            whole = path.read_bytes()
            for case in [*damaged(whole, 300), b"[" * 10000 + b"\n", b"{}\n", b"\xff\n"]:
                notes.drop("k")
                path.write_bytes(case)
                assert all(line is None or isinstance(line, str) for _, line in notes.new())


def test_cases_are_thousands_and_always_the_same():
    def first(seed):
        return hashlib.sha256(b"".join(damaged(b"0123456789" * 9, 50, seed))).hexdigest()

    assert first(0) == first(0) != first(1)
    assert len(set(damaged(small_runs.SUITE.encode(), 500))) > 450
