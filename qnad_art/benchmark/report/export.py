"""Results as tables for other programs: a data frame with one row per cell, and LaTeX."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qnad_art.benchmark.records import RUNGS, Interval, Plan, Result, Rung

if TYPE_CHECKING:
    import pandas as pd

    from qnad_art.benchmark.report.view import View

_TYPES = {
    "seed": "Int64",
    "eps": "Float64",
    "images": "Int64",
    "draws": "Int64",
    "shots": "Int64",
    "plan_requested": "Float64",
    "plan_achieved": "Float64",
    "plan_injected": "Int64",
    "linf": "Float64",
    "l2": "Float64",
    "gradients": "Int64",
    "queries": "Int64",
    "single_step": "boolean",
}
"""Columns that may be empty or hold whole numbers; the others are text and plain floats."""


def to_frame(results: Sequence[Result]) -> pd.DataFrame:
    """A data frame with one row per cell, audit cells included.

    Columns: ``key``; the coordinates ``kind`` to ``rung``; ``accuracy``, ``majority`` and
    ``every_draw``, each with ``_low`` and ``_high`` of its 95 % interval; what they rest on; the
    median perturbation ``linf`` and ``l2``; ``curve`` (JSON); the provenance, ``versions`` as
    JSON; ``unreliable``, the names of the gates that the defence failed, joined by "; ".
    """
    import pandas as pd

    from qnad_art.benchmark.audit.audit import failed_gates

    failed = failed_gates(results)
    rows = [{**_row(r), "unreliable": "; ".join(failed[r.cell.where])} for r in results]
    frame = pd.DataFrame(rows)
    return frame.astype({name: kind for name, kind in _TYPES.items() if name in frame})


def _row(result: Result) -> dict[str, Any]:
    provenance, plan = result.provenance, result.provenance.plan
    figures: dict[str, float] = {}
    for name in ("accuracy", "majority", "every_draw"):
        figure: Interval = getattr(result, name)
        figures |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return {
        "key": result.key,
        **result.cell.model_dump(),
        **figures,
        "images": result.images,
        "draws": result.draws,
        "norm": result.norm,
        "single_step": result.single_step,
        "linf": result.perturbation.get("linf"),
        "l2": result.perturbation.get("l2"),
        "curve": json.dumps([point.model_dump() for point in result.curve]),
        "gradients": result.gradients,
        "queries": result.queries,
        "seconds": result.seconds,
        "device_hash": provenance.device_hash,
        "shots": provenance.shots,
        **{f"plan_{name}": getattr(plan, name, None) for name in Plan.model_fields},
        "data_hash": provenance.data_hash,
        "weights_hash": provenance.weights_hash,
        "versions": json.dumps(provenance.versions, sort_keys=True),
        "gpu": provenance.gpu,
    }


def latex(results: Sequence[Result]) -> str:
    """Tables for the package booktabs: one for each model, data set, device and rung.

    Rows are defences. Columns are the clean images and then attacks and budgets. Accuracies are in
    percent with 95 % intervals, and means over the seeds (:func:`~.view.pooled`).
    """
    from qnad_art.benchmark.audit.audit import audit_results
    from qnad_art.benchmark.report.view import View, place

    cells = [result.cell for result in results]
    classical = {r.cell.defence for r in results if r.provenance.device_hash is None}
    classical -= {r.cell.defence for r in results if r.provenance.device_hash is not None}
    places = dict.fromkeys(place(c) for c in cells if c.defence not in classical)
    gates = audit_results(results)
    tables = []
    for where in places or dict.fromkeys(map(place, cells)):
        view = View(where, results, cells, gates, None, classical)
        found = {condition.rung for condition in view.conditions}
        rungs: list[Rung | None] = [rung for rung in RUNGS if rung in found]
        tables += [_table(view, rung) for rung in rungs or [None]]
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(tables)


def _table(view: View, rung: Rung | None) -> str:
    here = [condition for condition in view.conditions if condition.rung == rung]
    heads, rules, start = [], "", 3
    for attack, count in Counter(condition.attack for condition in here).items():
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(attack)}}}")
        rules += rf"\cmidrule(lr){{{start}-{start + count - 1}}}"
        start += count
    shown = "clean images" if rung is None else f"rung {rung}"
    caption = f"Accuracy in % with 95 % intervals, {shown}: {view.title}."
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (1 + len(here))}}}",
        r"\toprule",
        *([_line("", "", *heads), rules] if here else []),
        _line("defence", "clean", *(escape(condition.size) for condition in here)),
        r"\midrule",
        *(
            _line(
                escape(view.label(defence)),
                *(_cell(view.accuracy(defence, condition)) for condition in (None, *here)),
            )
            for defence in view.defences
        ),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _line(*fields: str) -> str:
    return " & ".join(fields) + r" \\"


def _cell(accuracy: Interval | None) -> str:
    if accuracy is None:
        return "missing"
    value, low, high = (100 * x for x in (accuracy.value, accuracy.low, accuracy.high))
    return rf"{value:.1f} {{\scriptsize [{low:.1f}, {high:.1f}]}}"


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # otherwise LaTeX reads it as an argument of the line break before it
        "ε": r"$\varepsilon$",
        "∞": r"$_\infty$",
    }
)


def escape(text: str) -> str:
    """Escape text so that LaTeX shows it unchanged."""
    return text.translate(_LATEX)
