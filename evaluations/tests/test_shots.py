"""The study of shots: what it measures, on which images, and how it goes on."""

import json

import numpy as np
import pytest
import typer
from art_fixtures import hardened, images, network
from typer.testing import CliRunner

from qnad_art import QuantumExecutedClassifier
from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.models.weights import save_weights
from qnad_evaluations.studies import shots


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_weights(network(), path)
    return path


@pytest.fixture
def evaluate(weights, tmp_path):
    """Function: run the command on few images; returns what it printed and the file it wrote."""
    app = typer.Typer()
    app.command()(shots.main)
    output = tmp_path / "figures.json"
    settings = ("--data", "digits", "--images", "40", "--calibration-images", "60")

    def run(*arguments):
        command = [str(weights), *settings, "--output", str(output), *arguments]
        result = CliRunner().invoke(app, command, env={"COLUMNS": "80"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output, json.loads(output.read_text())

    return run


ONE = ("--shots", "64", "--percentile", "99", "--draws", "2")
WAYS = ("equal", "margin")


def test_every_execution_is_measured_with_its_intervals(evaluate):
    arguments = ("--shots", "16", "--shots", "4096", "--percentile", "100", "--percentile", "99.5")
    printed, written = evaluate(*arguments, "--draws", "3")
    figures = written["figures"]
    names = ("expectation", *(f"{n} shots, {a}" for n in ("16", "4,096") for a in WAYS))
    assert figures.keys() == {"test: plain"} | {
        f"test: percentile {p}, {name}" for p in ("100", "99.5") for name in names
    }
    for name, figure in figures.items():
        low, high = figure["wilson95"]
        assert 0 <= low <= figure["accuracy"] <= high <= 1
        assert figure["images"] == 40
        assert ("draws" in figure) == ("shots" in name)
    noisy = figures["test: percentile 100, 16 shots, equal"]
    assert len(set(noisy["draws"])) > 1  # fresh noise in every draw
    assert noisy["accuracy"] == pytest.approx(np.mean(noisy["draws"]))
    assert sum(noisy["draws95"]) / 2 == pytest.approx(noisy["accuracy"])
    half = 4.303 * np.std(noisy["draws"], ddof=1) / np.sqrt(3)  # Student, two degrees of freedom
    assert np.diff(noisy["draws95"]) / 2 == pytest.approx(half, rel=1e-3)
    few, many = (figures[f"test: percentile 100, {n} shots, equal"] for n in ("16", "4,096"))
    assert few["accuracy"] < many["accuracy"]
    exact = figures["test: percentile 100, expectation"]["accuracy"]
    assert exact == pytest.approx(figures["test: plain"]["accuracy"], abs=0.06)
    for word in ("percentile", "allocation", "4,096", "margin", "digits"):
        assert word in printed


def test_a_second_run_measures_only_what_is_missing(evaluate, monkeypatch):
    _, first = evaluate(*ONE)
    from_art, made = QuantumExecutedClassifier.from_art, []

    def counted(*arguments, **settings):
        made.append(settings["percentile"])
        return from_art(*arguments, **settings)

    monkeypatch.setattr(QuantumExecutedClassifier, "from_art", counted)
    printed, same = evaluate(*ONE)
    assert same == first
    assert made == []
    assert "64" in printed  # the table is there all the same
    _, more = evaluate(*ONE, "--percentile", "90")
    assert made == [90]
    assert more["figures"].items() > first["figures"].items()


def test_settings_are_chosen_without_test_images_or_those_of_the_calibration(evaluate, monkeypatch):
    from qnad_art.datasets import dataset as datasets

    load, from_art = datasets.load_dataset, QuantumExecutedClassifier.from_art
    predict = QuantumExecutedClassifier.predict
    calibrated, judged = [], []

    def only_training(name, split="test", **options):
        assert split == "train"
        return load(name, split, **options)

    def calibrate(plain, x, **settings):
        calibrated.extend(x)
        return from_art(plain, x, **settings)

    def judge(self, x, *arguments, **options):
        judged.extend(x)
        return predict(self, x, *arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset", only_training)
    monkeypatch.setattr(QuantumExecutedClassifier, "from_art", calibrate)
    monkeypatch.setattr(QuantumExecutedClassifier, "predict", judge)
    printed, written = evaluate(*ONE, "--split", "validation")
    assert "Best in validation: percentile 99, 64 shots, margin" in printed
    assert all(name.startswith("validation: ") for name in written["figures"])
    own = {image.tobytes() for image in images("digits", "train").x}
    used, looked_at = ({image.tobytes() for image in part} for part in (calibrated, judged))
    assert len(used) == 60
    assert len(looked_at) == 40
    assert used | looked_at <= own
    assert not used & looked_at


def test_both_splits_share_a_file_but_other_settings_do_not(evaluate):
    evaluate(*ONE, "--split", "validation")
    printed, written = evaluate(*ONE)
    assert {name.split(":")[0] for name in written["figures"]} == {"validation", "test"}
    assert "Best in validation" not in printed
    with pytest.raises(ArtifactError, match="draws is 2 there and 1 here"):
        evaluate(*ONE, "--draws", "1")
    with pytest.raises(UnknownNameError, match="test, validation"):
        evaluate(*ONE, "--split", "train")


def test_a_hardened_network_is_measured_as_it_was_saved(evaluate, tmp_path):
    saved = hardened()
    saved.save("tuned", str(tmp_path))
    folder = ("--hardened", str(tmp_path / "tuned"))
    printed, written = evaluate("--shots", "64", *folder)
    judged = images().take(40)
    exact = (saved.predict(judged.x).argmax(1) == judged.y).mean()
    assert written["figures"]["test: hardened, expectation"]["accuracy"] == pytest.approx(exact)
    assert {f"test: hardened, 64 shots, {way}" for way in WAYS} < written["figures"].keys()
    assert "own" in printed
    with pytest.raises(InvalidInputError, match="leave --percentile out"):
        evaluate(*ONE, *folder)
    with pytest.raises(ArtifactError, match="plan"):
        evaluate(*ONE)  # its figures would be of another network
