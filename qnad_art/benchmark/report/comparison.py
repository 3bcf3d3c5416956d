"""Differences between measured cells, paired by image, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qnad_art.benchmark.records import Cell, Interval, Result
from qnad_art.errors import UnknownNameError

Verdict = Literal["A higher", "B higher", "not resolved"]


@dataclass(frozen=True)
class Pair:
    """Two results on the same images; ``difference`` is the accuracy of B minus that of A."""

    a: Result
    b: Result
    difference: Interval
    unreliable: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Which of both is higher, if the interval does not include zero."""
        if self.difference.low > 0:
            return "B higher"
        return "A higher" if self.difference.high < 0 else "not resolved"


@dataclass(frozen=True)
class Unmatched:
    """A result without a partner, and the reason."""

    side: Literal["A", "B"]
    cell: Cell
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All pairs, and all results without a partner."""

    pairs: tuple[Pair, ...]
    unmatched: tuple[Unmatched, ...]


def compare_runs(a: Sequence[Result], b: Sequence[Result], *, seed: int = 0) -> Comparison:
    """Compare the results of two runs, matched by cell and by image.

    Args:
        a, b: results of one run each.
        seed: seed of the bootstrap.
    """
    return _compare({r.cell: r for r in a}, {r.cell: r for r in b}, seed)


def compare_defences(results: Sequence[Result], a: str, b: str, *, seed: int = 0) -> Comparison:
    """Compare two defences of one run, matched by the rest of the cell and by image.

    Raises:
        UnknownNameError: a defence that the run does not have.
    """
    sides: dict[str, dict[Cell, Result]] = {}
    for result in results:
        rest = result.cell.model_copy(update={"defence": ""})
        sides.setdefault(result.cell.defence, {})[rest] = result
    for name in (a, b):
        if name not in sides:
            raise UnknownNameError("defence of the run", name, sides)
    return _compare(sides[a], sides[b], seed)


def difference(a: Result, b: Result, *, seed: int = 0) -> Interval:
    """Accuracy of ``b`` minus that of ``a`` with a 95 % interval, paired by image."""
    from qnad_art.benchmark.statistics.intervals import paired_difference, scored

    return paired_difference(scored(b), scored(a), seed=seed)


def mismatch(a: Result, b: Result) -> str | None:
    """Why two results cannot be paired by image, or ``None`` if they can."""
    if a.provenance.data_hash != b.provenance.data_hash:
        return "other images (the data hashes differ)"
    if a.images != b.images:
        return f"another number of images ({a.images:,} and {b.images:,})"
    return None


def _compare(a: Mapping[Cell, Result], b: Mapping[Cell, Result], seed: int) -> Comparison:
    """Pair the results of equal cells, apart from those of audits."""
    from qnad_art.benchmark.audit.audit import failed_gates

    failed_a, failed_b = (failed_gates(list(side.values())) for side in (a, b))
    a, b = ({c: r for c, r in side.items() if c.kind != "audit"} for side in (a, b))
    pairs: list[Pair] = []
    unmatched: list[Unmatched] = []
    for cell, first in a.items():
        second = b.get(cell)
        if second is None:
            unmatched.append(Unmatched("A", first.cell, "B has no such cell"))
        elif fault := mismatch(first, second):
            unmatched.append(Unmatched("A", first.cell, fault))
            unmatched.append(Unmatched("B", second.cell, fault))
        else:
            names = [f"A: {name}" for name in failed_a[first.cell.where]]
            names += [f"B: {name}" for name in failed_b[second.cell.where]]
            pairs.append(Pair(first, second, difference(first, second, seed=seed), tuple(names)))
    only_b = (result for cell, result in b.items() if cell not in a)
    unmatched += [Unmatched("B", result.cell, "A has no such cell") for result in only_b]
    return Comparison(tuple(pairs), tuple(unmatched))
