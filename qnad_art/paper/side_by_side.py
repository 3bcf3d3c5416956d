"""All defences of a comparative suite, each under the strongest attack of every rung."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from qnad_art.benchmark.audit import audit_results
from qnad_art.benchmark.comparison import difference, mismatch
from qnad_art.benchmark.records import RUNGS, Interval, Result, Rung
from qnad_art.benchmark.report.view import Budget, Condition, View, place
from qnad_art.paper.marks import audit_marks
from qnad_art.paper.record import Recorded


@dataclass(frozen=True)
class Standing:
    """A defence at one budget.

    Args:
        defence: its label.
        mark: of its audit.
        clean: accuracy on clean images.
        left: by rung, accuracy under the attack that leaves the least.
        gain: the lowest of ``left``, less the plain network's lowest under the same attacks.
    """

    defence: str
    mark: str
    clean: Interval | None
    left: dict[Rung, Interval]
    gain: Interval | None

    @property
    def least(self) -> float:
        """The lowest accuracy that was found."""
        return min(interval.value for interval in self.left.values())


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
        tuple(sorted(found, key=lambda standing: -standing.least)),
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
    measured.sort(key=lambda item: -item[1].value)
    return Standing(
        defence,
        marks[defence],
        view.accuracy(defence),
        {condition.rung: accuracy for condition, accuracy in measured},
        _gain(view, defence, [condition for condition, _ in measured]),
    )


def _gain(view: View, defence: str, conditions: Sequence[Condition]) -> Interval | None:
    """Each at its own lowest: which of equals a defence is lowest under says nothing."""
    if view.undefended in (None, defence):
        return None
    both = [_lowest(view, name, conditions) for name in (view.undefended, defence)]
    pairs = zip(*both, strict=False)
    gains = [difference(a, b) for a, b in pairs if mismatch(a, b) is None]
    return gains[0] if len(gains) == 1 else None


def _lowest(view: View, defence: str, conditions: Sequence[Condition]) -> list[Result]:
    """Results under the condition that leaves the least."""
    found = [results for c in conditions if (results := view.of(defence, c))]
    return min(found, key=lambda results: fmean(r.accuracy.value for r in results), default=[])
