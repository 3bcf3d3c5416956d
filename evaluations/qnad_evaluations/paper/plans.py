"""What holds over crosstalk plans: records of several seeds, each with plans made anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.view import Condition, View
from qnad_art.benchmark.statistics.worst import accuracy_at_worst, at_worst, gain_at_worst
from qnad_evaluations.paper.marks import audit_marks
from qnad_evaluations.paper.record import Recorded
from qnad_evaluations.paper.side_by_side import views

OVER_PLANS = "Over crosstalk plans"
"""Title of the section on it."""


@dataclass(frozen=True)
class OverPlans:
    """A defence that was made anew for every seed, in one condition.

    Args:
        under: the condition.
        mark: of the audit.
        plans: how many there are.
        lowest, highest: accuracy with one of them, over all images.
        mean: with an interval over plans and images.
        gain: mean less the accuracy of the plain network, likewise.
    """

    record: Recorded
    network: str
    defence: str
    mark: str
    under: str
    plans: int
    lowest: float
    highest: float
    mean: Interval
    gain: Interval | None


def over_plans(records: Sequence[Recorded]) -> Iterator[OverPlans]:
    """Of every record with several seeds, at the largest budget of every norm.

    On clean images, under the transferred examples of each attack (the paper's setting), and under
    all attacks together. Seeds that have not been under all of these are left out.
    """
    for record in records:
        if len({result.cell.seed for result in record.results}) > 1:
            for view in views(record):
                marks = audit_marks(view.results)
                for defence in view.defences:
                    if defence != view.undefended:
                        yield from _of(record, view, defence, marks[defence])


def _of(record: Recorded, view: View, defence: str, mark: str) -> Iterator[OverPlans]:
    for under, conditions in _conditions(view):
        ours = view.by_seed(defence, conditions)
        theirs = view.by_seed(view.undefended, conditions) if view.undefended else []
        if len(ours) > 1:
            each = [float(at_worst(results).mean()) for results in ours]
            yield OverPlans(
                record,
                view.title,
                defence,
                mark,
                under,
                len(ours),
                min(each),
                max(each),
                accuracy_at_worst(ours),
                gain_at_worst(ours, theirs) if theirs else None,
            )


def _conditions(view: View) -> Iterator[tuple[str, Sequence[Condition | None]]]:
    """By name, the conditions that count together."""
    yield "clean images", [None]
    for norm in dict.fromkeys(budget.norm for budget in view.budgets):
        largest = max(budget for budget in view.budgets if budget.norm == norm)
        here = view.one_try(largest)
        for condition in here:
            if condition.rung == "transfer":
                yield str(condition), [condition]
        yield f"at worst · {largest}", here
