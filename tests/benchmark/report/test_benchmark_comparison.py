"""Differences between runs and between defences, paired by image."""

import json

import numpy as np
import pytest
from benchmark_results import IMAGES, a_suite, attack, cell, outcomes, result
from scipy import stats
from typer.testing import CliRunner

from qnad_art.benchmark.report.comparison import compare_defences, compare_runs, difference
from qnad_art.benchmark.run.folder import Run
from qnad_art.benchmark.statistics.intervals import scored
from qnad_art.cli import app
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.files.atomic import write_json


def run_folder(folder, results):
    """A run with these results."""
    cells = [{"key": r.key, "cell": r.cell.model_dump(mode="json")} for r in results]
    write_json(folder / "suite.json", {"format": 1, "suite": {}, "cells": cells})
    run = Run.open(folder)
    for found in results:
        run.append(found)
    return folder


def test_difference_is_b_less_a_with_the_interval_of_paired_differences():
    rng = np.random.default_rng(1)
    a = rng.random((1, 400)) < 0.7
    b = a & (rng.random((1, 400)) < 0.85)
    found = difference(result(cell(), a), result(cell(), b))
    per_image = b[0].astype(float) - a[0]
    expected = stats.t.interval(0.95, 399, per_image.mean(), stats.sem(per_image))
    assert found.value == pytest.approx(per_image.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)
    independent = 1.96 * np.sqrt(a.var() / 400 + b.var() / 400)
    assert found.high - found.low < 2 * independent  # pairing pays


def test_under_persistence_an_image_counts_if_it_holds_in_every_draw():
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    assert scored(result(attack(), correct)).mean() == 5 / 8
    assert scored(result(attack(rung="persistent"), correct)).tolist() == [[1, 0, 0, 1]]


def test_runs_are_matched_by_cell_whatever_their_order():
    results = a_suite()
    found = compare_runs(results, results[::-1])
    measured = [r for r in results if r.cell.kind != "audit"]
    assert len(found.pairs) == len(measured)
    assert found.unmatched == ()
    assert all(pair.a.cell == pair.b.cell for pair in found.pairs)
    assert {pair.verdict for pair in found.pairs} == {"not resolved"}
    masked = [pair for pair in found.pairs if pair.a.cell.defence == "masked"]
    assert {pair.unreliable for pair in masked} == {("A: gradients exist", "B: gradients exist")}


def test_what_does_not_match_is_listed():
    same, gone, new = cell(), attack(eps=0.1), attack(eps=0.2)
    moved, fewer = attack(eps=0.3), attack(eps=0.4)
    half = outcomes(0.5)
    a = [result(c, half) for c in (same, gone, moved, fewer)]
    b = [result(same, half), result(new, half), result(fewer, half[:, :30])]
    b.append(result(moved, half, provenance={"data_hash": "e" * 64}))
    found = compare_runs(a, b)
    assert [pair.a.cell for pair in found.pairs] == [same]
    listed = {(entry.side, entry.cell): entry.reason for entry in found.unmatched}
    assert listed.keys() == {
        ("A", gone),
        ("B", new),
        ("A", moved),
        ("B", moved),
        ("A", fewer),
        ("B", fewer),
    }
    assert "no such cell" in listed["A", gone]
    assert "data hashes" in listed["B", moved]
    assert f"{IMAGES} and 30" in listed["A", fewer]


def test_defences_of_one_run():
    found = compare_defences(a_suite(), "none", "crosstalk 0.3")
    strong = [p for p in found.pairs if p.a.cell.eps == 0.2 and p.a.cell.rung == "white-box"]
    assert {pair.verdict for pair in strong} == {"B higher"}
    clean = next(pair for pair in found.pairs if pair.a.cell.kind == "clean")
    assert clean.difference.value == pytest.approx(
        clean.b.accuracy.value - clean.a.accuracy.value, abs=1e-12
    )
    back = compare_defences(a_suite(), "crosstalk 0.3", "none")
    assert {p.verdict for p in back.pairs if p.a.cell in [q.b.cell for q in strong]} == {"A higher"}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'crosstalk 0\.3'"):
        compare_defences(a_suite(), "none", "crostalk 0.3")


def test_command_prints_a_table_and_what_it_left_out(tmp_path):
    results = a_suite()
    a, b = run_folder(tmp_path / "a", results), run_folder(tmp_path / "b", results[:-1])
    shown = CliRunner().invoke(app, ["compare", str(a), str(b)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "96.7" in shown.output  # clean accuracy of the undefended network, 58 of 60
    assert "unreliable, A: gradients exist" in shown.output
    assert "Not compared (1):" in shown.output
    assert f"A: {results[-1].cell}: B has no such cell" in shown.output


@pytest.mark.parametrize("columns", ["60", "80"])
def test_command_fits_a_terminal(columns, tmp_path):
    folder = run_folder(tmp_path / "a", a_suite())
    arguments = ["compare", str(folder), "--defence", "none", "--against", "crosstalk 0.3"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": columns})
    assert shown.exit_code == 0, shown.output
    assert "…" not in shown.output
    words = shown.output.split()
    assert words[: words.index("cell")].count("seed") == 1  # of all cells, above the table
    assert "seed" not in words[words.index("cell") :]


def test_command_says_that_there_is_nothing_to_compare(tmp_path):
    a, b = run_folder(tmp_path / "a", a_suite()), run_folder(tmp_path / "b", [])
    shown = CliRunner().invoke(app, ["compare", str(a), str(b)])
    assert shown.exit_code == 0, shown.output
    assert "nothing to compare" in shown.output
    assert "Not compared" in shown.output


def test_command_gives_json(tmp_path):
    results = a_suite()
    folder = run_folder(tmp_path / "a", results)
    arguments = ["compare", str(folder), "--defence", "none", "--against", "crosstalk 0.3"]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    expected = compare_defences(results, "none", "crosstalk 0.3")
    assert [pair["difference"] for pair in found["pairs"]] == [
        pair.difference.model_dump() for pair in expected.pairs
    ]
    assert found["a"] == "none"
    assert found["unmatched"] == []


@pytest.mark.parametrize(
    "arguments", [["a"], ["a", "b", "--defence", "none", "--against", "x"], ["a", "--defence", "x"]]
)
def test_command_wants_two_sides(arguments):
    shown = CliRunner().invoke(app, ["compare", *arguments])
    assert isinstance(shown.exception, InvalidInputError)
    assert "--against" in str(shown.exception)
