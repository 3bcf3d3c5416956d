"""Adversarial training alone against adversarial training with QNAD on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qnad_art.benchmark.records import Interval, Result
from qnad_art.benchmark.report.comparison import difference, mismatch
from qnad_art.benchmark.report.view import condition_of
from qnad_evaluations.paper.marks import audit_marks
from qnad_evaluations.paper.record import Recorded

TRAINERS = {"madry", "trades", "awp", "fast-adversarial-training", "finetune"}
QNAD = {"inherent", "qnad-uniform", "qnad-random", "qnad-tuned", "hardened"}


@dataclass(frozen=True)
class TrainingPair:
    """A trained network and the same under QNAD, in one condition, with the audit's marks."""

    record: Recorded
    alone: str
    together: str
    condition: str
    first: Result
    second: Result
    gain: Interval
    marks: tuple[str, str]


def training_pairs(records: Sequence[Recorded]) -> Iterator[TrainingPair]:
    """Every pair of the records, clean and on the adaptive rung."""
    for record in records:
        for alone, steps in record.header.defences.items():
            if [step["name"] for step in steps if step["name"] in TRAINERS] and len(steps) == 1:
                for together, more in record.header.defences.items():
                    if more[:1] == steps and len(more) == 2 and more[1]["name"] in QNAD:
                        yield from _pairs(record, alone, together)


def _pairs(record: Recorded, alone: str, together: str) -> Iterator[TrainingPair]:
    marks = audit_marks(record.results)
    theirs = {
        result.cell.model_copy(update={"defence": "", "device": ""}): result
        for result in record.results
        if result.cell.defence == alone
    }
    for result in record.results:
        shown = result.cell.kind == "clean" or result.cell.rung == "adaptive"
        if result.cell.defence != together or not shown:
            continue
        first = theirs.get(result.cell.model_copy(update={"defence": "", "device": ""}))
        if first is not None and mismatch(first, result) is None:
            where = condition_of(result)
            yield TrainingPair(
                record,
                alone,
                together,
                "clean images" if where is None else str(where),
                first,
                result,
                difference(first, result),
                (marks[alone], marks[together]),
            )
