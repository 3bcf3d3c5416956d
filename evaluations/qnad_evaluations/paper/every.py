"""Every accuracy and every failed gate, suite by suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qnad_art.benchmark.report.chart import percent
from qnad_art.benchmark.report.view import Condition, View
from qnad_evaluations.paper.markdown import folded, markdown
from qnad_evaluations.paper.marks import LEGEND, audit_marks, marked
from qnad_evaluations.paper.record import Recorded
from qnad_evaluations.paper.side_by_side import views

COLUMNS = 6
"""Conditions in one table, beside the defence and clean images: more are not readable."""


def every_accuracy(records: Sequence[Recorded]) -> str:
    """The section."""
    intro = f"In % with 95 % intervals, rung by rung. {LEGEND}"
    return "\n\n".join(["## Every accuracy", intro, *map(_suite, records)])


def _suite(record: Recorded) -> str:
    parts = []
    for view in views(record):
        parts += [f"**{view.title}**", *_tables(view)]
        failed = [f"- {d}: {', '.join(view.failed(d))}" for d in view.defences if view.failed(d)]
        if failed:
            parts += ["Unreliable, gates of the audit that failed:", "\n".join(failed)]
    failures = [f"- {cell}: {reason}" for cell, reason in record.header.failures]
    if failures:
        parts += ["Cells that could not be measured:", "\n".join(failures)]
    return folded(f"{record.header.place}", "\n\n".join(parts))


def _tables(view: View) -> Iterator[str]:
    """Defences by conditions."""
    marks = audit_marks(view.results)
    for rung in dict.fromkeys(condition.rung for condition in view.conditions):
        conditions = [c for c in view.conditions if c.rung == rung]
        for start in range(0, len(conditions), COLUMNS):
            shown: list[Condition | None] = [None, *conditions[start : start + COLUMNS]]
            names = ["clean" if c is None else f"{c.attack} {c.size}" for c in shown]
            rows = [
                (marked(d, marks.get(d, "")), *(percent(view.accuracy(d, c)) for c in shown))
                for d in view.defences
            ]
            yield markdown((f"{rung}", *names), rows)
