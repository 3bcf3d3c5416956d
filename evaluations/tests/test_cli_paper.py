"""``qnad paper``: suites run, revised and recorded, and what is missing is said."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qnad_art.cli import app
from qnad_art.pretrained import load_pretrained
from qnad_evaluations.paper.record import read_records

SUITE = """
name: tiny
data: {name: digits, images: 20, train_images: 300}
models: {lenet5: {architecture: lenet5, epochs: 5}}
defences: {none: none, inherent: inherent}
attacks: [fgsm]
eps: [0.1]
rungs: [transfer, adaptive]
audit: false
"""
HARDENED = SUITE.replace(
    "inherent: inherent", "tuned: {name: hardened, folder: ../../hardened/mine}"
)


@pytest.fixture
def suites(tmp_path, monkeypatch):
    """A folder of suites in the place of ``evaluations``."""
    folder = tmp_path / "evaluations"
    (folder / "paper" / "quick").mkdir(parents=True)
    monkeypatch.setattr("qnad_evaluations.paper.suites.suites_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder / "paper" / "quick"


def paper(*options):
    arguments = ["paper", "--quick", "--workers", "1", *map(str, options)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def test_a_dry_run_estimates_and_says_what_is_missing(suites):
    (suites / "tiny.yaml").write_text(SUITE)
    (suites / "wanting.yaml").write_text(HARDENED)
    done = paper("--dry-run", "--hardened", "elsewhere")
    assert "paper/quick/tiny: 6 cells, about 0:00:" in done.output
    assert "LEFT OUT paper/quick/wanting: it needs" in done.output
    assert str(Path("elsewhere", "mine")) in done.output
    assert "qnad harden" in done.output
    assert done.exit_code == 1
    assert not Path("runs").exists()
    assert paper("paper/tiny", "--dry-run").exit_code == 0


def test_what_runs_nothing_does_not_ask_for_records(tmp_path):
    arguments = ["paper", "paper/alexnet*", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "LEFT OUT paper/reduced/alexnet" in result.output
    assert isinstance(result.exception, SystemExit)


def test_one_size_at_a_time(suites):
    assert "not both" in str(paper("--full").exception)


@pytest.mark.slow
def test_suites_are_run_recorded_and_revised(suites, tmp_path):
    (suites / "tiny.yaml").write_text(SUITE)
    done = paper("--record", "book")
    assert done.exit_code == 0, done.output
    (record,) = read_records(Path("book", "results"))
    assert len(record.results) == record.header.cells == 6
    assert record.header.data["provenance"].startswith("The 1,797 8×8 digits")
    assert record.header.defences["none"] == []
    text = Path("book", "results", "paper", "quick", "tiny.jsonl").read_text()
    assert str(tmp_path) not in text
    assert "paper/quick/tiny" in Path("book", "RESULTS.md").read_text()
    first = json.loads(text.splitlines()[1])
    # Another ε: what was measured stays, and only the new cells are measured.
    (suites / "tiny.yaml").write_text(SUITE.replace("[0.1]", "[0.1, 0.2]"))
    done = paper("--record", "book")
    assert "4 cells to measure, 6 are there" in done.output
    (record,) = read_records(Path("book", "results"))
    assert len(record.results) == 10
    assert first["seconds"] in [result.seconds for result in record.results]
    assert CliRunner().invoke(app, ["results", "book"]).exit_code == 0


@pytest.mark.slow
def test_records_and_page_say_how_hardened_folders_were_tuned(suites):
    shipped = load_pretrained("lenet5-mnist")
    model = shipped.hardened.module.device_profile.crosstalk_model
    (suites / "shipped.yaml").write_text(
        f"devices: ['ibm_nairobi[crosstalk={model}]']"
        """
name: shipped
data: {name: mnist5k, images: 20, train_images: 100}
models: {lenet5: lenet5-mnist}
defences: {none: none, tuned: {name: hardened, folder: lenet5-mnist}}
attacks: [fgsm]
eps: [0.3]
rungs: [transfer]
audit: false
"""
    )
    done = paper("--record", "book")
    assert done.exit_code == 0, done.output
    (record,) = read_records(Path("book", "results"))
    made = record.header.plans["lenet5-mnist"]
    card = shipped.card
    tuned = card["strategy_settings"]
    assert made["epsilon"] == tuned["epsilon"]
    assert made["headroom"] == card["headroom"]
    assert made["training_images"] == card["training_images"]
    assert record.header.data["train_images"] == "100"
    assert f"robust_weight {tuned['robust_weight']:g}" in Path("book", "RESULTS.md").read_text()
