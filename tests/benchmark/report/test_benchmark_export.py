"""Results read back from what was exported."""

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from benchmark_results import a_suite, attack, cell, outcomes, result

from qnad_art.benchmark.report.export import escape, latex, to_frame
from qnad_art.benchmark.report.sinks import Csv, Latex, Parquet

EVIL = r"50% & more_of {it} #1 $x$ ~^\ <script>"


@pytest.fixture(scope="module")
def results():
    quantum = {"defence": "crosstalk 0.1", "seed": 3}
    return [*a_suite(), result(attack("deepfool", eps=None, **quantum), outcomes(0.2, draws=4))]


def write(kind, results, folder):
    """What a sink writes, as the path of its file."""
    sink = kind(None, folder)
    for found in results:
        sink.take(found)
    (path,) = sink.close()
    return Path(path)


def same(row, found):
    """Whether a row, of any reader, holds a result's figures, exactly."""
    wanted = {
        "key": found.key,
        "defence": found.cell.defence,
        "kind": found.cell.kind,
        "accuracy": found.accuracy.value,
        "accuracy_low": found.accuracy.low,
        "majority_high": found.majority.high,
        "every_draw": found.every_draw.value,
        "images": found.images,
        "draws": found.draws,
        "gradients": found.gradients,
        "queries": found.queries,
        "seconds": found.seconds,
        "data_hash": found.provenance.data_hash,
    }
    return all(row[name] == value for name, value in wanted.items())


def test_parquet_reads_back_equal(results, tmp_path):
    frame = pd.read_parquet(write(Parquet, results, tmp_path))
    pd.testing.assert_frame_equal(frame, to_frame(results))
    assert all(same(row, r) for (_, row), r in zip(frame.iterrows(), results, strict=True))


def test_csv_reads_back_equal(results, tmp_path):
    with write(Csv, results, tmp_path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, found in zip(rows, results, strict=True):
        numbers = {k: float(v) for k, v in row.items() if k in ("accuracy", "accuracy_low")}
        assert numbers == {"accuracy": found.accuracy.value, "accuracy_low": found.accuracy.low}
        assert int(row["images"]) == found.images
        assert row["eps"] == ("" if found.cell.eps is None else str(found.cell.eps))
        assert row["rung"] == (found.cell.rung or "")
        assert row["shots"] == ("" if found.provenance.shots is None else "1024")
        assert json.loads(row["versions"]) == found.provenance.versions
        assert [p["accuracy"] for p in json.loads(row["curve"])] == [
            point.accuracy for point in found.curve
        ]


def test_columns_that_do_not_apply_are_empty(results):
    frame = to_frame(results).set_index("key")
    clean = frame.loc[results[0].key]
    assert pd.isna(clean[["attack", "eps", "rung", "norm", "linf", "shots", "plan_strategy"]]).all()
    quantum = frame[frame.defence == "crosstalk 0.3"]
    assert set(quantum.plan_achieved) == {0.295}
    assert set(quantum.device_hash) == {"h" * 64}


def test_every_figure_of_a_defence_that_fails_its_audit_is_unreliable(results):
    frame = to_frame(results)
    flagged = frame[frame.unreliable != ""]
    assert set(flagged.defence) == {"masked"}
    assert set(flagged.unreliable) == {"gradients exist"}
    assert (frame[frame.defence == "masked"].unreliable != "").all()


def test_latex_has_every_accuracy(results, tmp_path):
    text = write(Latex, results, tmp_path).read_text()
    assert text.count(r"\begin{table}") == 3  # rungs
    for found in (r for r in results if r.cell.seed == 0 and r.cell.kind == "attack"):
        a = found.accuracy
        shown = f"{100 * a.value:.1f} {{\\scriptsize [{100 * a.low:.1f}, {100 * a.high:.1f}]}}"
        assert shown in text
    assert "masked (unreliable) &" in text
    assert "missing" in text  # only one defence met DeepFool


def test_latex_is_well_formed_whatever_the_names():
    text = latex([result(cell(defence=d), outcomes(0.5)) for d in (EVIL, "[0.1] noise")])
    text += latex([result(attack(defence=EVIL, attack="p_g&d"), outcomes(0.5))])
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for table in re.findall(r"\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}", bare, re.S):
        rows = [line for line in table[1].splitlines() if "&" in line]
        spans = [sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d)", row)) for row in rows]
        assert {r.count("&") + s + 1 for r, s in zip(rows, spans, strict=True)} == {len(table[0])}
    assert escape(EVIL) == (
        r"50\% \& more\_of \{it\} \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}script\textgreater{}"
    )
    assert "\n{[}0.1] noise &" in text  # a bracket after \\ would be its argument
