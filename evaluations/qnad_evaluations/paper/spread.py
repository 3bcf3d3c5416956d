"""How much hangs on the crosstalk plan: the same settings, with plans made twice."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from qnad_art.benchmark.records import Result
from qnad_art.benchmark.report.chart import percent
from qnad_evaluations.paper.plans import over_plans
from qnad_evaluations.paper.record import Recorded

PLANNED = {"qnad-uniform", "qnad-random", "qnad-tuned"}
"""Their plans are made in the run, from its training images."""


@dataclass(frozen=True)
class Measured:
    """A result, and the record that it is of."""

    result: Result
    record: Recorded

    def __str__(self) -> str:
        return f"{percent(self.result.accuracy.value)} in {self.record.header.place}"


def widest(records: Sequence[Recorded]) -> tuple[Measured, Measured] | None:
    """The two results with a plan each that differ most, the higher first.

    Of the paper's suites alone: under one label their attacks are the same in all.
    """
    found: dict[Hashable, list[Measured]] = defaultdict(list)
    for record in records:
        for result in record.results if record.header.collection == "paper" else ():
            steps = record.header.defences[result.cell.defence]
            if result.cell.kind != "audit" and any(step["name"] in PLANNED for step in steps):
                found[_alike(result, steps)].append(Measured(result, record))
    pairs = [
        (max(same, key=_accuracy), min(same, key=_accuracy))
        for same in found.values()
        if len(same) > 1
    ]
    return max(pairs, key=lambda pair: _accuracy(pair[0]) - _accuracy(pair[1]), default=None)


def spread_text(records: Sequence[Recorded]) -> str:
    """What the intervals leave out, and how much that was seen to be."""
    text = (
        "**Intervals cover test images and noise draws, not crosstalk plans**: what is said of "
        "*uniform*, *random* or *tuned* crosstalk holds for the one plan that was made"
        f"{', except where it says otherwise' if any(over_plans(records)) else ''}."
    )
    pair = widest(records)
    if pair is None:
        return text
    high, low = pair
    cell = high.result.cell
    where = "clean images" if cell.attack is None else f"{cell.attack} ε {cell.eps:.3g} {cell.rung}"
    points = 100 * (_accuracy(high) - _accuracy(low))
    return (
        f"{text} Two records of the same network, images, settings and attack, each with a plan "
        f"made anew from the training images of its suite, differ by up to {points:.1f} points "
        f"({cell.model}, {cell.defence}, {where}: {high}, {low})."
    )


def _alike(result: Result, steps: Sequence[object]) -> Hashable:
    cell, provenance = result.cell, result.provenance
    settings = json.dumps(steps, sort_keys=True)
    condition = (cell.attack, cell.eps, cell.rung, cell.seed)
    network = (provenance.weights_hash, provenance.data_hash, provenance.device_hash)
    return (cell.model, settings, condition, network)


def _accuracy(measured: Measured) -> float:
    return measured.result.accuracy.value
