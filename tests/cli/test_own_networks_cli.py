"""Commands on networks that are code, and suites that name them."""

import json

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from own_networks import write_networks
from torch import nn
from typer.testing import CliRunner

from qnad_art import QuantumExecutedClassifier
from qnad_art.benchmark import Run, Suite, load_suite, run_suite
from qnad_art.benchmark.run.planner import workload_of
from qnad_art.cli import app
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_art.models import find_model

QUICK = ("--data", "digits", "--epochs", "1")
SUITE = """
name: own
data: {name: digits, images: 20, train_images: 60}
models: {mine: {architecture: "nets.py:Net", epochs: 1}}
defences: {none: none}
attacks: [fgsm]
eps: [0.1]
rungs: [transfer]
protocol: {draws: 2, selection_draws: 2, resamples: 100}
audit: false
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with the file of networks."""
    write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def shown(result):
    """Text without line breaks and frames, of a command or of the error that it ended with."""
    return " ".join(f"{result.output} {result.exception or ''}".replace("│", " ").split())


def keys(suite, **options):
    return {str(task): task.key for task in workload_of(suite, **options).tasks}


class TestCommands:
    def test_from_training_to_resources(self, here):
        trained = run("train", "nets.py:Net", *QUICK)
        assert trained.exit_code == 0, trained.output
        assert "Running code: nets.py:Net" in trained.output
        weights, folder = "nets-Net-digits.safetensors", "net"
        harden = ("harden", weights, *QUICK, "--test-images", 20, "--output", folder)
        assert "only run if you name it" in shown(run(*harden))
        hardened = run(*harden, "--model", "nets.py:Net")
        assert hardened.exit_code == 0, hardened.output
        assert "Running code: nets.py:Net" in hardened.output
        tuned = run("tune", weights, *QUICK, "--model", "nets.py:Net", "--output", "p.safetensors")
        assert tuned.exit_code == 0, tuned.output

        plan = run("describe", folder)
        assert plan.exit_code == 0, plan.output
        assert "code, which is not part of the folder" in plan.output
        assert "Running code" not in plan.output
        everything = run("describe", folder, "--model", "nets.py:Net")
        for table in ("Crosstalk (tuned) on ibm_nairobi", "Strategy tuned"):
            assert table in plan.output
            assert table in everything.output
        assert "Quantum execution on ibm_nairobi" in everything.output

        assert "--model FILE.py:NAME" in shown(run("resources", folder))
        of_folder = run("resources", folder, "--model", "nets.py:Net", "--json")
        assert of_folder.exit_code == 0, of_folder.output
        of_weights = run("resources", weights, "--model", "nets.py:Net")
        assert of_weights.exit_code == 0, of_weights.output

    def test_resources_of_code(self, here):
        usual = run("resources", "nets.py:FLAT", "--json")
        assert json.loads(usual.stdout)["total"]["products"] == 10 * 12 * 12
        assert "--input-shape" in shown(run("resources", "nets.py:Net"))
        given = run("resources", "nets.py:Net", "--input-shape", "1x8x8", "--json")
        assert json.loads(given.stdout)["total"]["products"] == 36 * 2 * 9 + 720
        assert "as in 1x28x28" in shown(run("resources", "nets.py:Net", "--input-shape", "1x8x9"))

    @pytest.mark.parametrize("command", ["harden", "tune"])
    def test_errors_of_the_code_are_told(self, here, command):
        run("train", "nets.py:Net", *QUICK)
        failed = run(command, "nets-Net-digits.safetensors", *QUICK, "--model", "nets.py:fails")
        assert isinstance(failed.exception, InvalidInputError)
        assert "nets.py:fails failed: RuntimeError: no such layer" in shown(failed)

    @pytest.mark.parametrize("command", ["evaluate", "harden", "tune", "resources", "train"])
    def test_help_says_that_code_is_run(self, command):
        assert "the code is run" in shown(run(command, "--help"))

    def test_a_folder_of_a_class_of_ones_own_describes_itself(self, here):
        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(5, 2)

            def forward(self, x):
                return self.layer(x)

        plain = PyTorchClassifier(Mine(), nn.CrossEntropyLoss(), (5,), 2, device_type="cpu")
        x = np.random.default_rng(0).random((8, 5), dtype=np.float32)
        QuantumExecutedClassifier.from_art(plain, x, device="ibm_nairobi").save("mine")
        described = run("describe", "mine")
        assert described.exit_code == 0, described.output
        assert "layer" in described.output
        assert "square images only" in shown(run("describe", "mine", "--model", "nets.py:Net"))


class TestSuites:
    @pytest.fixture
    def path(self, here):
        path = here / "suite.yaml"
        path.write_text(SUITE)
        return path

    def test_a_suite_alone_never_runs_code(self, path):
        touched = path.parent / "touched"
        write_networks(path.parent, f"\nimport pathlib\npathlib.Path({str(touched)!r}).touch()\n")
        with pytest.raises(InvalidInputError, match=r"line 4, models.mine: .*--allow-code"):
            load_suite(path)
        for options in ((), ("--dry-run",)):
            assert "give --allow-code" in shown(run("evaluate", path, *options))
        suite = load_suite(path, allow_code=True)
        with pytest.raises(InvalidInputError, match="allow_code=True"):
            run_suite(suite, path.parent / "run")
        with pytest.raises(ValueError, match="allow-code"):
            Suite.model_validate(suite.model_dump(mode="json"))
        assert not touched.exists()

    def test_a_run_measures_the_code_and_its_folder_has_none_run(self, path):
        done = run("evaluate", path, "--allow-code", "--workers", 1, "--output", "run")
        assert done.exit_code == 0, done.output
        assert f"Running code: {path.parent / 'nets.py'}:Net" in done.output
        write_networks(path.parent, "\nraise SystemExit('run')\n")
        recorded = Run.open("run")
        assert len(recorded.results()) == 2
        reported = run("report", "run", "--format", "csv")
        assert reported.exit_code == 0, reported.output
        with pytest.raises(InvalidInputError, match="allow_code=True"):
            run_suite(recorded.suite, path.parent / "run")

    def test_changed_code_is_another_cell_and_moved_code_the_same(self, path, tmp_path_factory):
        before = keys(load_suite(path, allow_code=True), allow_code=True)
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        write_networks(elsewhere)
        moved = elsewhere / "suite.yaml"
        moved.write_text(SUITE)
        assert keys(load_suite(moved, allow_code=True), allow_code=True) == before
        write_networks(path.parent, "\n# better\n")
        after = keys(load_suite(path, allow_code=True), allow_code=True)
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())

    def test_weights_that_the_code_starts_from_count(self, path):
        values = {}
        for value in (0.0, 1.0):
            torch.save(torch.full((10, 72), value), "start.pt")
            source = (
                "\n\ndef start():\n    network = Net()\n"
                f"    network.output.weight.data = torch.load({'start.pt'!r})\n"
                "    return network\n"
            )
            write_networks(path.parent, source)
            suite = load_suite(path, model="nets.py:start")
            values[value] = set(keys(suite, allow_code=True).values())
        assert not values[0.0] & values[1.0]

    def test_code_that_changes_while_a_run_is_on_is_not_measured(self, path):
        changing = (
            "\n\nimport pathlib\n\ndef changing():\n"
            "    file = pathlib.Path(__file__)\n"
            "    file.write_text(file.read_text() + '# changed')\n"
            "    return Net()\n"
        )
        write_networks(path.parent, changing)
        suite = load_suite(path, model="nets.py:changing")
        done = run_suite(suite, path.parent / "run", allow_code=True, workers=1)
        assert not done.results()
        assert "has changed since the run was planned" in (done.folder / "log.txt").read_text()

    def test_a_network_on_the_command_line_takes_the_place_of_the_suite_s(self, path):
        path.write_text(SUITE.replace("nets.py:Net", "nets.py:Nowhere"))
        dry = run("evaluate", path, "--model", "nets.py:FLAT", "--dry-run")
        assert dry.exit_code == 0, dry.output
        assert "nets.py:FLAT · ibm_nairobi · none · clean · seed 0" in dry.output
        named = run("evaluate", path, "--model", "lenet5", "--dry-run")
        assert "lenet5 · ibm_nairobi · none · clean · seed 0" in named.output
        assert "Did you mean 'lenet5'" in shown(run("evaluate", path, "--model", "lenet"))

    def test_a_hardened_folder_of_code_is_measured(self, path):
        assert run("train", "nets.py:Net", *QUICK).exit_code == 0
        weights = "nets-Net-digits.safetensors"
        options = ("--model", "nets.py:Net", "--strategy", "uniform", "--test-images", 20)
        hardened = run("harden", weights, "--data", "digits", *options, "--output", "net")
        assert hardened.exit_code == 0, hardened.output
        path.write_text(
            SUITE.replace("epochs: 1", f"weights: {weights}").replace(
                "none: none", "crosstalk: {name: hardened, folder: ./net}"
            )
        )
        done = run("evaluate", path, "--allow-code", "--workers", 1, "--output", "run")
        assert done.exit_code == 0, done.output
        assert len(Run.open("run").results()) == 2


def test_folders_load_with_the_code_alone(here):
    assert run("train", "nets.py:Net", *QUICK).exit_code == 0
    options = ("--strategy", "uniform", "--test-images", 20, "--output", "net")
    harden = ("harden", "nets-Net-digits.safetensors", "--data", "digits", *options)
    assert run(*harden, "--model", "nets.py:Net").exit_code == 0
    with pytest.raises(ArtifactError, match="only run if you name it"):
        QuantumExecutedClassifier.load("net")
    network = find_model("nets.py:Net").build(None)
    assert QuantumExecutedClassifier.load("net", model=network).plan.injected
