"""Differences between measured cells, paired by image, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from qnad_art.benchmark.records import Cell, Interval, Result
from qnad_art.errors import UnknownNameError

Verdict = Literal["A higher", "B higher", "not resolved"]


@dataclass(frozen=True)
class Pair:
    """Two results on the same images; ``difference`` is the accuracy of B less that of A."""

    a: Result
    b: Result
    difference: Interval
    unreliable: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Which is higher, if the interval leaves out zero."""
        if self.difference.low > 0:
            return "B higher"
        return "A higher" if self.difference.high < 0 else "not resolved"


@dataclass(frozen=True)
class Unmatched:
    """A result that has no partner, and why."""

    side: Literal["A", "B"]
    cell: Cell
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All pairs, and everything that found no partner."""

    pairs: tuple[Pair, ...]
    unmatched: tuple[Unmatched, ...]


def compare_runs(a: Sequence[Result], b: Sequence[Result], *, seed: int = 0) -> Comparison:
    """Results of two runs, matched by their cells and their images.

    Args:
        a, b: results of one run each.
        seed: of the bootstrap.
    """
    return _compare(a, b, lambda cell: cell, seed, _failed(a), _failed(b))


def compare_defences(results: Sequence[Result], a: str, b: str, *, seed: int = 0) -> Comparison:
    """Two defences of one run, matched by everything else and by their images.

    Raises:
        UnknownNameError: a defence that the run does not have.
    """
    present = {result.cell.defence for result in results}
    for name in (a, b):
        if name not in present:
            raise UnknownNameError("defence of the run", name, present)
    failed = _failed(results)
    first, second = ([r for r in results if r.cell.defence == name] for name in (a, b))
    return _compare(first, second, _without_defence, seed, failed, failed)


def difference(a: Result, b: Result, *, seed: int = 0) -> Interval:
    """Accuracy of ``b`` less that of ``a`` with a 95 % interval, paired by image."""
    from qnad_art.benchmark.statistics.intervals import paired_difference, scored

    return paired_difference(scored(b), scored(a), seed=seed)


def mismatch(a: Result, b: Result) -> str | None:
    """Why two results cannot be paired by image, or ``None`` if they can."""
    if a.provenance.data_hash != b.provenance.data_hash:
        return "other images (the data hashes differ)"
    if a.images != b.images:
        return f"another number of images ({a.images:,} and {b.images:,})"
    return None


def _without_defence(cell: Cell) -> Hashable:
    return cell.model_copy(update={"defence": ""})


def _failed(results: Sequence[Result]) -> Callable[[Result], list[str]]:
    from qnad_art.benchmark.audit.audit import audit_results, unreliable

    gates = audit_results(results)

    def of(result: Result) -> list[str]:
        cell = result.cell
        where = (cell.model, cell.data, cell.device, cell.defence, cell.seed)
        return unreliable(gates.get(where, ()))

    return of


def _compare(
    a: Iterable[Result],
    b: Iterable[Result],
    identity: Callable[[Cell], Hashable],
    seed: int,
    failed_a: Callable[[Result], list[str]],
    failed_b: Callable[[Result], list[str]],
) -> Comparison:
    left = {identity(r.cell): r for r in a if r.cell.kind != "audit"}
    right = {identity(r.cell): r for r in b if r.cell.kind != "audit"}
    pairs: list[Pair] = []
    unmatched: list[Unmatched] = []
    for place, first in left.items():
        second = right.get(place)
        if second is None:
            unmatched.append(Unmatched("A", first.cell, "B has no such cell"))
            continue
        fault = mismatch(first, second)
        if fault:
            sides: tuple[tuple[Literal["A", "B"], Result], ...] = (("A", first), ("B", second))
            unmatched += [Unmatched(side, result.cell, fault) for side, result in sides]
            continue
        names = [*(f"A: {n}" for n in failed_a(first)), *(f"B: {n}" for n in failed_b(second))]
        pairs.append(Pair(first, second, difference(first, second, seed=seed), tuple(names)))
    only_b = (result for place, result in right.items() if place not in left)
    unmatched += [Unmatched("B", result.cell, "A has no such cell") for result in only_b]
    return Comparison(tuple(pairs), tuple(unmatched))
