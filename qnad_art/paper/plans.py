"""What holds over crosstalk plans: records of several seeds, each with plans made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qnad_art.benchmark.comparison import scored
from qnad_art.benchmark.records import Bools, Interval
from qnad_art.benchmark.report.view import Budget, View
from qnad_art.benchmark.statistics import accuracy_interval, paired_difference
from qnad_art.paper.marks import audit_marks
from qnad_art.paper.record import Recorded
from qnad_art.paper.side_by_side import views

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
    all attacks and rungs together.
    """
    for record in records:
        if len({result.cell.seed for result in record.results}) > 1:
            for view in views(record):
                marks = audit_marks(view.results)
                for defence in view.defences:
                    if defence != view.undefended:
                        yield from _of(record, view, defence, marks[defence])


def _of(record: Recorded, view: View, defence: str, mark: str) -> Iterator[OverPlans]:
    theirs = {} if view.undefended is None else _conditions(view, view.undefended)
    for under, by_seed in _conditions(view, defence).items():
        # One draw of each: plans count like draws, of which the noise is then a part.
        ours = np.concatenate([outcomes[:1] for _, outcomes in sorted(by_seed.items())])
        plain = [outcomes[:1] for _, outcomes in sorted(theirs.get(under, {}).items())]
        if len(ours) > 1:
            yield OverPlans(
                record,
                view.title,
                defence,
                mark,
                under,
                len(ours),
                float(ours.mean(1).min()),
                float(ours.mean(1).max()),
                accuracy_interval(ours),
                paired_difference(ours, np.concatenate(plain)) if plain else None,
            )


def _conditions(view: View, defence: str) -> Mapping[str, Mapping[int, Bools]]:
    """Outcomes (draws, images) by condition and seed."""
    found = {"clean images": {r.cell.seed: scored(r) for r in view.of(defence, None)}}
    for budget in _largest(view):
        here = [condition for condition in view.conditions if condition.budget == budget]
        for condition in here:
            if condition.rung == "transfer":
                results = view.of(defence, condition)
                found[str(condition)] = {r.cell.seed: scored(r) for r in results}
        found[f"at worst · {budget}"] = view.outcomes_at_worst(defence, here)
    return {under: by_seed for under, by_seed in found.items() if by_seed}


def _largest(view: View) -> list[Budget]:
    norms = dict.fromkeys(budget.norm for budget in view.budgets)
    return [max(b for b in view.budgets if b.norm == norm) for norm in norms]
