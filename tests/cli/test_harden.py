"""``qnad harden`` and ``qnad tune``: options reach the strategy, runs resume, files are sound."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from art_fixtures import images, network
from typer.testing import CliRunner

from qnad_art import CrosstalkPlan, QuantumExecutedClassifier
from qnad_art.accuracy import Proportion, compare, count_robust, pgd_examples
from qnad_art.cli import app, main
from qnad_art.cli.inputs import CrosstalkFit
from qnad_art.cli.screen import Console
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.errors import DeviceError, InvalidInputError
from qnad_art.models.architectures import build_model
from qnad_art.models.weights import save_weights
from qnad_art.training.adversarial import TuningEpoch
from qnad_art.training.budget import parse_budget

DATA = ("--data", "digits", "--images", "100")
QUICK = (
    *(*DATA, "--epochs", "2", "--batch-size", "50", "--attack-steps", "1"),
    *("--epsilon", "1/10", "--learning-rate", "0.2"),
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_weights(network(), path)
    return path


def test_progress_says_the_step_and_the_time_left(monkeypatch):
    screen = Console(file=io.StringIO())
    settings = {"epochs": 2, "batch_size": 50, "attack_steps": 1, "epsilon": 0.1}
    fit = CrosstalkFit(screen, "tuned", settings, checkpoint=Path("none"), resume=False, seed=0)
    seen = []
    monkeypatch.setattr(fit.status, "update", seen.append)
    clock = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr("qnad_art.cli.inputs.time.monotonic", lambda: next(clock))
    for done in (1, 2, 4):
        fit.strategy.on_step(done, 8)
    assert seen == [
        "Step 1 of 8",
        "Step 2 of 8, about 0:01:00 left",  # 10 s a step, 6 steps
        "Step 4 of 8, about 0:00:40 left",
    ]


@pytest.mark.parametrize("command", ["tune", "harden"])
def test_a_device_without_a_lever_is_refused_before_tuning(weights, tmp_path, command):
    output = ("--output", tmp_path / "it")
    device = ("--device", "ibm_nairobi[zz=0,crosstalk=echoed]")
    refused = run(command, weights, *QUICK, *device, *output)
    assert isinstance(refused.exception, DeviceError)
    assert "nothing to tune" in str(refused.exception)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_test_data(monkeypatch):
    from qnad_art.datasets import dataset as datasets

    original = datasets.load_dataset

    def guarded(name, split="test", **options):
        assert split == "train"
        return original(name, split, **options)

    monkeypatch.setattr(datasets, "load_dataset", guarded)


def test_harden_saves_a_classifier_that_loads_and_a_card_that_says_how(weights, tmp_path):
    output = tmp_path / "runs" / "hard"
    given = ("--fraction", "0.2", "--max-pairs", "3", "--robust-weight", "0.6", "--seed", "3")
    more = ("--headroom", "1.1", "--test-images", "40", "--test-epsilon", "6/255")
    done = run("harden", weights, *QUICK, *given, *more, "--output", output)
    assert done.exit_code == 0, done.output
    said = ("Using 100 of them", "epoch 1/2", "epoch 2/2", "products per image")
    for line in (*said, "Crosstalk (tuned)", "white-box"):
        assert line in done.output
    assert {f.name for f in output.parent.iterdir()} == {"hard", "hard.card.json"}
    hardened = QuantumExecutedClassifier.load(output)
    expected = {"fraction": 0.2, "max_pairs": 3, "robust_weight": 0.6, "epsilon": 0.1}
    expected |= {"epochs": 2, "attack_steps": 1, "batch_size": 50, "seed": 3}
    settings = hardened.plan.settings
    assert {name: settings[name] for name in expected} == expected
    assert settings["precision"] == Tuned.precision  # not given: the strategy's own
    assert hardened.plan.achieved > 0.05
    assert hardened.module.execution.headroom == 1.1
    card = json.loads((tmp_path / "runs" / "hard.card.json").read_text())
    assert card["strategy_settings"] == settings
    assert card["test_epsilon"] == 6 / 255
    assert card["training_images"] == 100
    test = images().take(40, seed=3)
    clean = card["figures"]["clean"]["hardened"]
    assert clean["accuracy"] == (hardened.predict(test.x).argmax(1) == test.y).mean()
    assert clean["wilson95"][0] < clean["accuracy"] < clean["wilson95"][1]


def test_uniform_takes_its_own_settings_and_no_others(weights, tmp_path):
    output = tmp_path / "uniform"
    options = ("--strategy", "uniform", "--test-images", "20", "--output", output)
    done = run("harden", weights, *DATA, *options, "--pairs", "21", "--test-epsilon", "0.1")
    assert done.exit_code == 0, done.output
    plan = CrosstalkPlan.load(output / "plan.safetensors")
    assert plan.settings["pairs"] == 21  # the table of responses is made long enough
    refused = run("harden", weights, *DATA, *options, "--epochs", "3")
    assert "setting of strategy 'uniform': 'epochs'" in str(refused.exception)
    refused = run("harden", weights, *DATA, *options, "--resume")
    assert "'resume'" in str(refused.exception)


def test_ctrl_c_keeps_the_last_epoch_and_resume_gives_the_same_plan(
    weights, tmp_path, monkeypatch, no_test_data
):
    path = tmp_path / "plan.safetensors"
    command = ("tune", weights, *QUICK, "--output", path)
    whole = run(*command)
    assert whole.exit_code == 0, whole.output
    expected = safetensors.torch.load_file(path)
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(TuningEpoch, "__str__", _press_ctrl_c)
        stopped = run(*command)
    assert stopped.exit_code == 130
    assert "--resume" in stopped.output
    assert not path.exists()
    assert "is of another run" in str(run(*command, "--resume", "--fraction", "0.1").exception)
    resumed = run(*command, "--resume")
    assert "epoch 2/2" in resumed.output
    assert "epoch 1/2" not in resumed.output
    found = safetensors.torch.load_file(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert [file.name for file in tmp_path.iterdir()] == ["plan.safetensors"]


def _press_ctrl_c(epoch):
    raise KeyboardInterrupt


def test_ctrl_c_while_measuring_leaves_no_figures_of_another(weights, tmp_path, monkeypatch):
    output = tmp_path / "net"
    card = tmp_path / "net.card.json"
    command = ("harden", weights, *QUICK, "--test-images", "20", "--output", output)
    assert run(*command).exit_code == 0
    assert json.loads(card.read_text())["strategy_settings"]["fraction"] == 0.3
    with monkeypatch.context() as patch:
        patch.setattr("qnad_art.accuracy.compare", lambda *_, **__: _press_ctrl_c(None))
        stopped = run(*command, "--fraction", "0.2")
    assert stopped.exit_code == 130
    assert f"Replacing the classifier in {output}" in " ".join(stopped.output.split())
    assert "repeat the command with --resume" in " ".join(stopped.output.split())
    assert not card.exists()
    resumed = run(*command, "--fraction", "0.2", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "epoch" not in resumed.output
    assert json.loads(card.read_text())["strategy_settings"]["fraction"] == 0.2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net", "net.card.json"]


def test_a_folder_describes_itself(weights, tmp_path):
    output = tmp_path / "net"
    options = ("--strategy", "uniform", "--mapping", "linear", "--test-images", "20")
    assert run("harden", weights, *DATA, *options, "--output", output).exit_code == 0
    card = json.loads((tmp_path / "net.card.json").read_text())
    assert card["mapping"] == "linear"
    described = run("describe", output)
    assert described.exit_code == 0
    assert "mapping=linear" in described.output
    assert "leave out --device" in str(run("describe", output, "--device", "ideal").exception)
    plan = output / "plan.safetensors"
    assert "give its JSON file" in str(run("describe", _renamed(plan)).exception)


def _renamed(path):
    """The plan, made for a device that is not one by name."""
    plan = replace(CrosstalkPlan.load(path), device="mylab")
    plan.save(path)
    return path


def test_raw_weights_need_the_name_of_the_network(weights, tmp_path, no_test_data):
    raw = tmp_path / "raw.safetensors"
    tensors = {name: value.contiguous() for name, value in network().state_dict().items()}
    safetensors.torch.save_file(tensors, raw)
    output = tmp_path / "plan.safetensors"
    assert "give one of" in str(run("tune", raw, *QUICK, "--output", output).exception)
    named = run("tune", raw, *QUICK, "--model", "lenet5", "--epochs", "1", "--output", output)
    assert named.exit_code == 0, named.output
    assert CrosstalkPlan.load(output).achieved > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["harden", "--epsilon", "6/0"], "6/255"),
        (["harden", "--epsilon", "8"], "at most 1"),
        (["harden", "--test-epsilon", "much"], "--test-epsilon is 'much'"),
        (["harden", "--strategy", "tune"], "Did you mean 'tuned'"),
        (["harden", "--device", "ibm_nairobbi"], "Did you mean 'ibm_nairobi'"),
        (["harden", "--fraction", "0.2", "--epochs", "0"], "epochs is 0"),
        (["harden", "--precision", "half"], "bfloat16"),
        (["harden", "--output", "."], "exists and is not a saved classifier"),
        (["tune", "--images", "0"], "Cannot take 0 images"),
        (["tune", "--output", "."], "is a folder"),
        (["tune", "--search", "--epsilon", "0.1", "--output", __file__], "is a file"),
        (["tune", "--trials", "3"], "add --search"),
        (["tune", "--shots", "10", "--shots", "20"], "--search to choose"),
        (["tune", "--search"], "needs --epsilon"),
        (["tune", "--search", "--epsilon", "0.1", "--resume"], "--storage"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(arguments, message, weights, monkeypatch, capsys):
    command, *options = arguments
    monkeypatch.setattr(sys, "argv", ["qnad", command, str(weights), "--data", "digits", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1
    assert error.startswith("Error:")
    assert message in error


def test_weights_for_other_images_are_refused(tmp_path):
    path = tmp_path / "mnist.safetensors"
    save_weights(build_model("lenet5"), path)
    refused = run("tune", path, *QUICK).exception
    assert "10 classes of 1×28×28 images, but digits has 10 classes of 1×8×8" in str(refused)


def test_a_tuning_that_changed_nothing_says_so(weights, tmp_path, no_test_data):
    output = tmp_path / "plan.safetensors"
    done = run("tune", weights, *QUICK, "--learning-rate", "1e-6", "--output", output)
    assert done.exit_code == 0, done.output
    assert "No weight received crosstalk" in done.output


@pytest.mark.parametrize(
    ("text", "value"), [("6/255", 6 / 255), ("0.1", 0.1), (" 8 / 255 ", 8 / 255), ("1e-2", 0.01)]
)
def test_budgets(text, value):
    assert parse_budget(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1/255", "1/0", "nan", "inf", "a/b", "2"])
def test_budgets_that_are_none(text):
    with pytest.raises(InvalidInputError, match="6/255"):
        parse_budget(text)


class TestMeasure:
    def test_examples_keep_to_the_budget_and_fool_the_network_they_are_made_on(self):
        from art_fixtures import hardened, plain

        test, classifier = images().take(50), plain()
        x = pgd_examples(classifier, test.x, test.y, epsilon=0.1)
        assert np.abs(x - test.x).max() <= 0.1 + 1e-6
        stages = []
        noisy = hardened(classifier)
        figures = compare(classifier, noisy, test.x, test.y, epsilon=0.1, on_stage=stages.append)
        assert stages == list(figures) == ["clean", "transfer", "white-box"]
        right = int((classifier.predict(x).argmax(1) == test.y).sum())
        assert figures["transfer"]["plain"] == Proportion(right, 50)
        assert figures["white-box"]["hardened"].correct < figures["clean"]["hardened"].correct

    def test_robust_is_who_holds_with_both_kinds_of_gradients(self):
        from art_fixtures import hardened, plain

        test = images().take(50)
        victim = hardened(plain(), percentile=60.0)
        x = pgd_examples(victim, test.x, test.y, epsilon=0.05)
        with victim.module.unsaturated_gradients():
            before = victim.predict(test.x)
            through = pgd_examples(victim, test.x, test.y, epsilon=0.05)
        np.testing.assert_array_equal(victim.predict(test.x), before)  # only gradients change
        assert not np.allclose(x, through)
        holds = [victim.predict(examples).argmax(1) == test.y for examples in (x, through)]
        robust = count_robust(victim, test.x, test.y, epsilon=0.05)
        assert robust == Proportion(int((holds[0] & holds[1]).sum()), 50)

    def test_wilsons_interval(self):
        low, high = Proportion(8, 10).interval
        z = 1.959964
        middle, half = (0.8 + z**2 / 20) / (1 + z**2 / 10), torch.tensor(0.016 + z**2 / 400).sqrt()
        half = float(half) * z / (1 + z**2 / 10)
        assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-6)
