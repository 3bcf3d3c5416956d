"""All defences of a comparative suite, on every rung and under all attacks together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qnad_art.benchmark.audit.audit import audit_results
from qnad_art.benchmark.records import RUNGS, Interval, Rung
from qnad_art.benchmark.report.view import Budget, View, place
from qnad_art.benchmark.statistics.worst import accuracy_at_worst, gain_at_worst
from qnad_evaluations.paper.marks import audit_marks
from qnad_evaluations.paper.record import Recorded


@dataclass(frozen=True)
class Standing:
    """A defence at one budget.

    Args:
        defence: its label.
        mark: of its audit.
        clean: accuracy on clean images.
        left: by rung, accuracy under the attack that leaves the least.
        worst: under all attacks together; ``None`` if it was not under all of them.
        gain: ``worst``, less the plain network's.
    """

    defence: str
    mark: str
    clean: Interval | None
    left: dict[Rung, Interval]
    worst: Interval | None
    gain: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The standings of one network on one device, at one budget, the most robust first."""

    record: Recorded
    title: str
    budget: Budget
    rungs: tuple[Rung, ...]
    standings: tuple[Standing, ...]


def comparisons(records: Sequence[Recorded]) -> Iterator[Comparison]:
    """Of every comparative suite, at its largest budget of every norm."""
    for record in records:
        if record.header.collection == "comparative":
            for view in views(record):
                for norm in dict.fromkeys(budget.norm for budget in view.budgets):
                    largest = max(budget for budget in view.budgets if budget.norm == norm)
                    yield _comparison(record, view, largest)


def views(record: Recorded) -> list[View]:
    """The record's results, by network and device."""
    cells = [result.cell for result in record.results]
    gates = audit_results(record.results)
    classical = {r.cell.defence for r in record.results if r.provenance.device_hash is None}
    plain = next((label for label, steps in record.header.defences.items() if not steps), None)
    quantum = [cell for cell in cells if cell.defence not in classical] or cells
    places = dict.fromkeys(place(cell) for cell in quantum)
    return [View(where, record.results, cells, gates, plain, classical) for where in places]


def _comparison(record: Recorded, view: View, budget: Budget) -> Comparison:
    rungs = [c.rung for c in view.conditions if c.budget == budget]
    marks = audit_marks(view.results)
    found = [
        standing
        for defence in view.defences
        if (standing := _standing(view, defence, budget, marks))
    ]
    return Comparison(
        record,
        view.title,
        budget,
        tuple(rung for rung in RUNGS if rung in rungs),
        tuple(sorted(found, key=lambda s: 1.0 if s.worst is None else -s.worst.value)),
    )


def _standing(
    view: View, defence: str, budget: Budget, marks: Mapping[str, str]
) -> Standing | None:
    measured = [
        (condition, accuracy)
        for condition in view.conditions
        if condition.budget == budget and (accuracy := view.accuracy(defence, condition))
    ]
    if not measured:
        return None
    conditions = view.one_try(budget)
    ours = view.by_seed(defence, conditions)
    other = view.undefended if view.undefended != defence else None
    theirs = [] if other is None else view.by_seed(other, conditions)
    measured.sort(key=lambda item: -item[1].value)
    return Standing(
        defence,
        marks[defence],
        view.accuracy(defence),
        {condition.rung: accuracy for condition, accuracy in measured},
        accuracy_at_worst(ours) if ours else None,
        gain_at_worst(ours, theirs) if ours and theirs else None,
    )
