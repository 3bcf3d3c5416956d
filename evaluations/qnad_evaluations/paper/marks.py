"""What the audit says of a figure: one mark for every table, chart and verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qnad_art.benchmark.audit.audit import audit_results, unreliable
from qnad_art.benchmark.records import Result

FAILED, UNAUDITED = "†", "‡"
LEGEND = f"{FAILED}: failed the audit, unreliable; {UNAUDITED}: not audited."


def audit_marks(results: Sequence[Result]) -> dict[str, str]:
    """By defence, its mark; none if it was audited and no gate failed anywhere in ``results``."""
    seen = audited(results)
    marks = {r.cell.defence: "" if r.cell.defence in seen else UNAUDITED for r in results}
    for (*_, defence, _), gates in audit_results(results).items():
        if unreliable(gates):
            marks[defence] = FAILED
    return marks


def audited(results: Sequence[Result]) -> set[str]:
    """Defences whose own gates were run; gates that compare cells are judged without."""
    return {result.cell.defence for result in results if result.cell.kind == "audit"}


def worst(marks: Iterable[str]) -> str:
    """The mark of what rests on several figures."""
    found = set(marks)
    return next((mark for mark in (FAILED, UNAUDITED) if mark in found), "")


def marked(text: str, mark: str) -> str:
    """Text with its mark."""
    return f"{text} {mark}" if mark else text
