"""The tables of a report: headline, improvement over the undefended network, every accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from qnad_art.benchmark.records import Interval, Result
from qnad_art.benchmark.report.chart import MINUS, Table, percent, points
from qnad_art.benchmark.report.comparison import difference, mismatch
from qnad_art.benchmark.report.view import Budget, Condition, View, pooled
from qnad_art.benchmark.statistics.intervals import RelativeImprovement, relative_improvement


@dataclass(frozen=True)
class Improvement:
    """A defence compared with the undefended network on the same images."""

    plain: Interval
    defended: Interval
    gain: Interval | None
    ratio: RelativeImprovement


def improvement(view: View, defence: str, condition: Condition | None) -> Improvement | None:
    """The gain of a defence under a condition; ``None`` if either side was not measured."""
    if view.undefended is None:
        return None
    theirs, ours = view.of(view.undefended, condition), view.of(defence, condition)
    plain, defended = view.accuracy(view.undefended, condition), view.accuracy(defence, condition)
    if plain is None or defended is None:
        return None
    ratio = relative_improvement(defended.value, plain.value)
    return Improvement(plain, defended, _gain(theirs, ours), ratio)


def _gain(theirs: Sequence[Result], ours: Sequence[Result]) -> Interval | None:
    """Difference over the seeds that both sides have, combined by :func:`~.view.pooled`."""
    by_seed = {result.cell.seed: result for result in theirs}
    found = [
        difference(by_seed[result.cell.seed], result)
        for result in ours
        if result.cell.seed in by_seed and not mismatch(by_seed[result.cell.seed], result)
    ]
    return pooled(found)


def headline(view: View) -> Table:
    """The outcome of the audit, clean accuracy, its cost and accuracy at worst of each defence."""
    budgets = [f"at worst, {budget}" for budget in view.budgets]
    rows = []
    for defence in view.defences:
        gain = improvement(view, defence, None)
        cost = "–" if defence == view.undefended else points(gain.gain if gain else None)
        worst = [_at_worst(view, defence, budget) for budget in view.budgets]
        rows.append(
            (
                view.label(defence),
                audit_words(view, defence),
                percent(view.accuracy(defence)),
                cost,
                *worst,
            )
        )
    return Table(
        caption=f"{view.title}: accuracy in % with 95 % intervals. At worst: under all attacks "
        "together, each image under the one that breaks it, without the rungs persistent and "
        "seed-known, which have tables of their own",
        columns=("defence", "audit", "clean", "clean, against undefended", *budgets),
        headers=2,
        rows=tuple(rows),
    )


def _at_worst(view: View, defence: str, budget: Budget) -> str:
    found = view.strongest(defence, budget)
    if found is None:
        return "missing"
    condition, alone = found
    here = [c for c in view.conditions if c.budget == budget]
    tried = sum(bool(view.of(defence, c)) for c in view.one_try(budget))
    strongest = f"{condition.attack}, {condition.rung} alone {100 * alone.value:.1f}"
    missing = sum(not view.of(defence, c) for c in here)
    notes = [f"of {tried}", strongest, *([f"{missing} missing"] if missing else [])]
    return f"{percent(view.at_worst(defence, budget))}\n{'; '.join(notes)}"


def audit_words(view: View, defence: str) -> str:
    """The outcome of the audit of a defence."""
    failed = view.failed(defence)
    if failed:
        return f"unreliable: {', '.join(failed)}"
    gates = [gate for (name, _), found in view.gates.items() if name == defence for gate in found]
    passed = sum(gate.verdict == "pass" for gate in gates)
    if not passed:
        return "not audited"
    return "passed" if passed == len(gates) else f"{passed} passed, {len(gates) - passed} not run"


def accuracies(view: View) -> list[Table]:
    """Every accuracy: a table per rung, with conditions as rows and defences as columns."""
    labels = tuple(view.label(defence) for defence in view.defences)
    tables = []
    for rung in dict.fromkeys(c.rung for c in view.conditions):
        conditions = [c for c in view.conditions if c.rung == rung]
        rows = [
            (c.attack, c.size, *(percent(view.accuracy(d, c)) for d in view.defences))
            for c in conditions
        ]
        clean = ("clean images", "–", *(percent(view.accuracy(d)) for d in view.defences))
        tables.append(
            Table(
                caption=f"Rung {rung}: accuracy in % with 95 % intervals",
                columns=("attack", "budget", *labels),
                rows=(clean, *rows),
                headers=2,
            )
        )
    return tables


def improvements(view: View) -> Table:
    """Every defence and condition against the undefended network: accuracies, gain and ratio."""
    rows = [
        (view.label(defence), str(condition), *_against_plain(view, defence, condition))
        for defence in view.defences
        for condition in view.conditions
        if view.undefended not in (None, defence) and view.of(defence, condition)
    ]
    plain = f"undefended: {view.label(view.undefended or 'none')}"
    return Table(
        caption="Against the undefended network: accuracies in %, gain in percentage points",
        columns=("defence", "under", plain, "defended", "gain", "relative improvement"),
        rows=tuple(rows),
        headers=2,
    )


def _against_plain(view: View, defence: str, condition: Condition) -> tuple[str, ...]:
    found = improvement(view, defence, condition)
    if found is None:
        plain = view.accuracy(view.undefended or "", condition)
        return percent(plain), percent(view.accuracy(defence, condition)), "missing", "missing"
    relative, ratio = found.ratio.improvement, "not meaningful"
    if relative is not None and found.ratio.meaningful:
        ratio = f"{round(100 * relative):+d} %".replace("-", MINUS)
    return percent(found.plain), percent(found.defended), points(found.gain), ratio


def perturbations(view: View) -> Table | None:
    """Sizes of the perturbations of attacks without a budget; ``None`` if the run has none."""
    rows = [
        (view.label(defence), str(condition), f"{size['l2']:#.3g}", f"{size['linf']:#.3g}")
        for condition in view.conditions
        if condition.budget is None
        for defence in view.defences
        for result in view.of(defence, condition)[:1]
        if {"l2", "linf"} <= set(size := result.perturbation)
    ]
    if not rows:
        return None
    return Table(
        caption="Attacks without a budget: median size of the perturbation",
        columns=("defence", "under", "L2", "L∞"),
        rows=tuple(rows),
        headers=2,
    )


def costs(view: View) -> Table:
    """What the figures of each defence rest on, and what measuring them cost."""
    found = {d: [r for r in view.results if r.cell.defence == d] for d in view.defences}
    return Table(
        caption="What the figures rest on, and what they took",
        columns=(
            "defence",
            "shots per product",
            "crosstalk",
            "images",
            "noise draws",
            "images with gradients",
            "images without gradients",
            "wall time",
        ),
        rows=tuple((view.label(d), *_cost(results)) for d, results in found.items() if results),
    )


def _cost(results: Sequence[Result]) -> tuple[str, ...]:
    scored = [result for result in results if result.cell.kind != "audit"]
    return (
        _each(map(shots_text, results)),
        _each(_crosstalk(result) for result in results),
        _each(f"{result.images:,}" for result in scored),
        _each(f"{result.draws:,}" for result in scored),
        f"{sum(result.gradients for result in results):,}",
        f"{sum(result.queries for result in results):,}",
        duration(sum(result.seconds for result in results)),
    )


def shots_text(result: Result) -> str:
    """Shots per product as text."""
    if result.provenance.device_hash is None:
        return "no circuits"
    shots = result.provenance.shots
    return "exact expectation" if shots is None else f"{shots:,}"


def _crosstalk(result: Result) -> str:
    plan = result.provenance.plan
    if plan is None or not plan.injected:
        return "none"
    return f"{plan.strategy}, {100 * plan.achieved:.1f} % of weights"


def _each(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts)) or "–"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))
