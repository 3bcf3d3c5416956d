"""The gates of the audit that compare measured cells image by image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from qnad_art.benchmark.audit.gates import TOLERANCE, Figures, worst_rise
from qnad_art.benchmark.records import Gate, Result, Rung

CURVE_NOISE = 3.0
"""Standard errors of an unpaired difference, because curves do not keep single images."""


class Pair(NamedTuple):
    """Two cells on the same images; the second should have the stronger attack."""

    weaker: Result
    stronger: Result


def compare_cells(results: Sequence[Result]) -> tuple[Gate, ...]:
    """All gates of one defence (on one model, data set, device and seed) that compare its cells."""
    attacks = [result for result in results if result.cell.kind == "attack"]
    clean = next((result for result in results if result.cell.kind == "clean"), None)
    return (
        _judged("cells: falls in ε", "accuracy falls as ε grows", _by_budget(attacks, clean)),
        _curves(attacks),
        _judged(
            "cells: iterative against single-step",
            "the best iterative attack is at least as strong as any single-step attack",
            _single_against_iterative(attacks),
        ),
        *(
            _judged(
                f"{strong} against {weak}",
                f"the rung {strong} is at least as strong as {weak}",
                _rungs(attacks, weak, strong),
            )
            for weak, strong in RUNGS_COMPARED
        ),
    )


RUNGS_COMPARED: tuple[tuple[Rung, Rung], ...] = (
    ("transfer", "white-box"),
    ("black-box", "white-box"),
    ("white-box", "adaptive"),
    ("transfer", "adaptive"),
    ("black-box", "adaptive"),
)


def _judged(name: str, demand: str, pairs: Sequence[Pair]) -> Gate:
    pairs = [pair for pair in pairs if pair.weaker.images == pair.stronger.images]
    if not pairs:
        reason = "the run has no two cells to compare"
        return Gate(name=name, verdict="not run", demand=demand, reason=reason)
    rise = worst_rise(
        [(weaker.correct.unpack(), stronger.correct.unpack()) for weaker, stronger in pairs], seed=0
    )
    weaker, stronger = pairs[rise.where]
    figures: Figures = {
        "comparisons": float(len(pairs)),
        "largest rise": rise.size,
        "from": weaker.accuracy.value,
        "to": stronger.accuracy.value,
    }
    reason = f"{stronger.cell} leaves {rise.size:.1%} more than {weaker.cell}" if rise.real else ""
    verdict = "fail" if rise.real else "pass"
    return Gate(name=name, verdict=verdict, demand=demand, figures=figures, reason=reason)


def _by_budget(attacks: Sequence[Result], clean: Result | None) -> list[Pair]:
    """Neighbouring budgets; single steps may overshoot, so they only face the clean images."""
    series: dict[tuple[str | None, Rung | None], list[Result]] = defaultdict(list)
    for result in attacks:
        if result.cell.eps is not None:
            series[result.cell.attack, result.cell.rung].append(result)
    pairs = []
    for found in series.values():
        found.sort(key=lambda result: result.cell.eps or 0.0)
        if clean is not None:
            pairs += [Pair(clean, result) for result in found]
        pairs += [Pair(*two) for two in pairwise(found) if not two[0].single_step]
    return pairs


def _single_against_iterative(attacks: Sequence[Result]) -> list[Pair]:
    singles = [result for result in attacks if result.single_step]
    iterative = [r for r in attacks if not r.single_step and r.cell.rung != "black-box"]
    return _against_strongest(
        singles, iterative, lambda r: (r.cell.rung, r.cell.eps, r.norm) if r.norm else None
    )


def _rungs(attacks: Sequence[Result], weak: Rung, strong: Rung) -> list[Pair]:
    """Cells of one rung, each against the cell of the other with the same attack and budget.

    Query attacks are not on the other rung, so they are compared with the strongest attack there.
    """
    weaker = [result for result in attacks if result.cell.rung == weak]
    stronger = [result for result in attacks if result.cell.rung == strong]
    if weak == "black-box":
        return _against_strongest(
            weaker, stronger, lambda r: (r.cell.eps, r.norm) if r.norm else None
        )
    return _against_strongest(weaker, stronger, lambda r: (r.cell.attack, r.cell.eps))


def _against_strongest(
    weaker: Sequence[Result], stronger: Sequence[Result], alike: Callable[[Result], object]
) -> list[Pair]:
    """Pair each weaker cell with the comparable stronger cell of the lowest accuracy.

    ``alike`` returns what both must have in common, or ``None`` if a cell cannot be compared.
    """
    strongest: dict[object, Result] = {}
    for result in sorted(stronger, key=lambda result: -result.accuracy.value):
        strongest[alike(result)] = result
    return [
        Pair(result, strongest[alike(result)])
        for result in weaker
        if alike(result) is not None and alike(result) in strongest
    ]


def _curves(attacks: Sequence[Result]) -> Gate:
    """The curves of the adaptive rung, separately for each kind of gradients."""
    name, demand = "cells: falls in EOT samples", "accuracy falls with gradients over more draws"
    worst, compared, reason = -1.0, 0, ""
    for result in attacks:
        for gradients in ("true", "unsaturated"):
            points = [p.accuracy for p in result.curve if p.gradients == gradients]
            for fewer, more in pairwise(points):
                noise = sqrt((fewer * (1 - fewer) + more * (1 - more)) / result.images)
                compared, worst = compared + 1, max(worst, more - fewer)
                if more - fewer > max(TOLERANCE, CURVE_NOISE * noise):
                    reason = f"{result.cell}: accuracy rises by {more - fewer:.1%}"
    if not compared:
        missing = "no adaptive cell has more than one number of samples"
        return Gate(name=name, verdict="not run", demand=demand, reason=missing)
    figures: Figures = {"comparisons": float(compared), "largest rise": worst}
    verdict = "fail" if reason else "pass"
    return Gate(name=name, verdict=verdict, demand=demand, figures=figures, reason=reason)
