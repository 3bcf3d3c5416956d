"""``qnad drift`` on a small hardened network, and tuning that goes on from a folder."""

import json

import pytest
from art_fixtures import images, network, plain
from typer.testing import CliRunner

from qnad_art import QNAD, QuantumExecutedClassifier, drift_study
from qnad_art.cli import app
from qnad_art.device.drift import TYPICAL
from qnad_art.drift_study import DriftPoint, DriftSettings, summarised
from qnad_art.models.weights import save_weights

FEW = ("--data", "digits", "--test-images", "12", "--draws", "2", "--steps", "2", "--span", "day")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    train = images("digits", "train")
    defence = QNAD(plain(), strategy="random", fraction=0.3, pairs=8, bias="quantum")
    defence.fit(train.x[:100], train.y[:100])
    root = tmp_path_factory.mktemp("hardened")
    defence(train.x[:100], plain()).save("digits", str(root))
    return root / "digits"


def test_table_figure_and_json_have_every_device(folder, tmp_path):
    out = tmp_path / "out"
    done = run("drift", folder, *FEW, "--no-parts", "--output", out)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "drift.json").read_text())
    assert found["crosstalk_model"] == "echoed"
    assert found["images"] == 12
    points = [DriftPoint.from_dict(point) for point in found["points"]]
    # The calibrated device, and two drawn ones with both words.
    assert [(p.hours, p.words, p.draw) for p in points] == [
        (0.0, "kept", 0),
        *((24.0, words, draw) for draw in (0, 1) for words in ("kept", "re-encoded")),
    ]
    assert found["summary"] == json.loads(json.dumps(summarised(points)))
    assert (out / "drift.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    assert "of the day" in done.output


def test_a_command_that_was_stopped_goes_on(folder, tmp_path, monkeypatch):
    out, real, asked = tmp_path / "out", drift_study.count_robust, []

    def stopping(*arguments, **settings):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(drift_study, "count_robust", stopping)
    arguments = ("drift", folder, *FEW, "--no-parts", "--words", "kept", "--output", out)
    assert run(*arguments).exit_code != 0
    assert not (out / "drift.json").exists()
    assert run(*arguments).exit_code == 0
    assert len(asked) == 3 + 1  # of three points two were kept


def test_points_are_of_the_parts_that_were_asked_for(folder):
    classifier = QuantumExecutedClassifier.load(folder)
    test = images("digits", "test")
    settings = DriftSettings(spans=(1.0,), parts=("zz", "detuning"), draws=1, steps=1)
    points = drift_study.drift_study(
        classifier, test.x[:8], test.y[:8], model=TYPICAL, settings=settings
    )
    assert [p.part for p in points] == ["all", "all", "zz", "detuning"]
    row = summarised(points)[1]
    assert row["draws"] == 1
    assert row["clean"]["sd"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--scale", "zz"), "is not PART=FACTOR"),
        (("--scale", "zzz=2"), "Unknown part of the drift 'zzz'"),
        (("--span", "weeks"), "Unknown time span 'weeks'"),
        (("--words", "recoded"), "words='recoded'"),
        (("--draws", "0"), "draws is 0"),
        (("--drift-model", "mine"), "Unknown drift model 'mine'"),
    ],
)
def test_wrong_values_are_named(folder, tmp_path, arguments, says):
    done = run("drift", folder, *FEW, *arguments, "--output", tmp_path / "out")
    assert done.exit_code != 0
    assert says in str(done.exception)


def test_hardening_goes_on_from_a_folder(folder, tmp_path):
    weights = tmp_path / "digits.safetensors"
    save_weights(network(), weights)
    done = run(
        *("harden", weights, "--data", "digits", "--images", "100", "--from", folder),
        *("--device", "ibm_nairobi[zz=1.05]", "--epochs", "1", "--batch-size", "50"),
        *("--epsilon", "0.1", "--attack-steps", "1", "--learning-rate", "1e-9"),
        *("--test-images", "10", "--output", tmp_path / "again"),
    )
    assert done.exit_code == 0, done.output
    before = QuantumExecutedClassifier.load(folder).plan
    after = QuantumExecutedClassifier.load(tmp_path / "again").plan
    assert after.injected == pytest.approx(before.injected, rel=0.15)
    assert after.device == "ibm_nairobi[zz=1.05]"
