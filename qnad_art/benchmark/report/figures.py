"""The figures of a report, built from the measured results and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import COLOURS, Chart, Panel, Point, Series
from qnad_art.benchmark.report.view import NO_BUDGET, Condition, View, norm_name

Families = Sequence[tuple[str, Sequence[tuple[float, str]]]]
"""Defences that differ only in their fraction of crosstalk: name, then (fraction, defence)."""

BANDS = "Bands are 95 % intervals."
ACCURACY = "accuracy (%)"
SAME_COLOUR = 3 * len(COLOURS)
"""Looks with this distance have the same colour, but different markers and dashes."""


def charts_of(view: View, families: Families) -> list[Chart]:
    """All figures for which one model, data set and device have results."""
    built = (
        _against_budget(view),
        _against_fraction(view, families),
        _against_samples(view),
        _pareto(view),
        _bars(view),
        _heat(view),
    )
    return [chart for chart in built if chart.panels]


def _points(measured: Iterable[tuple[float | str, Interval | None]]) -> tuple[Point, ...]:
    """A point for each accuracy that was measured."""
    return tuple(Point(x, accuracy) for x, accuracy in measured if accuracy is not None)


def _panel(view: View, title: str, placed: Sequence[tuple[float | str, Condition | None]]) -> Panel:
    """The accuracy of every defence under each condition, at the condition's place on the x axis.

    Defences of which only the clean images were measured are left out.
    """
    series = [
        Series(
            view.label(defence),
            view.look(defence),
            _points((x, view.accuracy(defence, condition)) for x, condition in placed),
        )
        for defence in view.defences
        if any(view.of(defence, condition) for _, condition in placed if condition is not None)
    ]
    return Panel(title, tuple(series))


def _against_budget(view: View) -> Chart:
    panels = []
    budgeted = [(c, c.budget) for c in view.conditions if c.budget is not None]
    for attack, rung, norm in dict.fromkeys((c.attack, c.rung, b.norm) for c, b in budgeted):
        placed: list[tuple[float | str, Condition | None]] = [(0.0, None)]
        placed += [
            (b.eps, c) for c, b in budgeted if (c.attack, c.rung, b.norm) == (attack, rung, norm)
        ]
        panels.append(_panel(view, f"{attack} ({norm_name(norm)}) · {rung}", placed))
    return Chart(
        key="epsilon",
        kind="lines",
        title="Accuracy against the attack's budget ε",
        caption=f"At ε = 0 the images are clean. {BANDS}",
        x_label="ε",
        y_label=ACCURACY,
        panels=tuple(panels),
    )


def _against_fraction(view: View, families: Families) -> Chart:
    panels = []
    names = ["clean", *map(str, view.budgets), NO_BUDGET]
    for family, members in families:
        known = [(fraction, defence) for fraction, defence in members if defence in view.defences]
        if len(known) < 2:
            continue
        failed = [f"{fraction:.4g}" for fraction, defence in known if view.failed(defence)]
        flagged = f"{family} (unreliable at {', '.join(failed)})" if failed else family
        for attack, rung in dict.fromkeys((c.attack, c.rung) for c in view.conditions):
            wanted: list[Condition | None] = [None]
            wanted += [c for c in view.conditions if (c.attack, c.rung) == (attack, rung)]
            curves = []
            for condition in wanted:
                name = "clean" if condition is None else condition.size
                points = _points((f, view.accuracy(defence, condition)) for f, defence in known)
                if points:
                    curves.append(Series(name, names.index(name), points))
            if any(len(curve.points) > 1 for curve in curves):
                panels.append(Panel(f"{flagged} · {attack} · {rung}", tuple(curves)))
    return Chart(
        key="fraction",
        kind="lines",
        title="Accuracy against the fraction of weights under crosstalk",
        caption=f"One curve for each ε. The fraction is the one asked for. {BANDS}",
        x_label="fraction of weights",
        y_label=ACCURACY,
        panels=tuple(panels),
    )


def _against_samples(view: View) -> Chart:
    panels = []
    gradients = (("true", ""), ("unsaturated", ", gradients through saturation"))
    for condition in (c for c in view.conditions if c.rung == "adaptive"):
        curves = []
        for defence in view.defences:
            measured = [
                point for result in view.of(defence, condition)[:1] for point in result.curve
            ]
            for number, (kind, remark) in enumerate(gradients):
                points = tuple(
                    Point(float(p.samples), p.accuracy) for p in measured if p.gradients == kind
                )
                look = view.look(defence) + number * SAME_COLOUR
                if len(points) > 1:
                    curves.append(Series(view.label(defence) + remark, look, points))
        if curves:
            panels.append(Panel(f"{condition.attack} · {condition.size}", tuple(curves)))
    many_seeds = len({result.cell.seed for result in view.results}) > 1
    return Chart(
        key="samples",
        kind="lines",
        title="Accuracy against the draws that the adaptive attack averages over (EOT)",
        caption=(
            "Accuracy under the attack with this many draws in each gradient, on draws of the "
            "attacker’s own. The figure of the adaptive rung is usually lower: it takes the best "
            "of these attacks for each image, and is scored on fresh draws. These points have no "
            "intervals. Defences without noise have no curve."
            + (" The curve of the first seed is shown." if many_seeds else "")
        ),
        x_label="draws per gradient",
        y_label=ACCURACY,
        panels=tuple(panels),
        log=True,
    )


def _pareto(view: View) -> Chart:
    panels = []
    for budget in view.budgets:
        found = []
        for defence in view.defences:
            clean, worst = view.accuracy(defence), view.at_worst(defence, budget)
            strongest = view.strongest(defence, budget)
            if clean is not None and worst is not None and strongest is not None:
                found.append((defence, clean, strongest[0], worst))
        front = _front(
            [(clean.value, left.value) for d, clean, _, left in found if not view.failed(d)]
        )
        curves = []
        for defence, clean, attacked, left in found:
            on_front = "on the front; " if (clean.value, left.value) in front else ""
            remark = f"{on_front}strongest: {attacked.attack}, {attacked.rung}"
            point = Point(clean, left, remark)
            curves.append(Series(view.label(defence), view.look(defence), (point,)))
        if curves:
            panels.append(Panel(str(budget), tuple(curves), tuple(front)))
    return Chart(
        key="pareto",
        kind="scatter",
        title="Clean accuracy and accuracy under all attacks",
        caption=(
            "Each defence under all attacks measured on it at this budget together, without the "
            "rungs persistent and seed-known: an image counts if none of them breaks it. The "
            "dotted line joins the defences that no other beats in both (the Pareto front), "
            "without unreliable ones. Bars are 95 % intervals."
        ),
        x_label="clean accuracy (%)",
        y_label="accuracy under attack (%)",
        panels=tuple(panels),
    )


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places for which no other place is at least as good in both coordinates."""
    best = [
        p for p in set(places) if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in places)
    ]
    return sorted(best)


def _bars(view: View) -> Chart:
    panels = []
    for rung, budget in dict.fromkeys((c.rung, c.budget) for c in view.conditions):
        here = [c for c in view.conditions if (c.rung, c.budget) == (rung, budget)]
        panels.append(_panel(view, f"{rung} · {here[0].size}", [(c.attack, c) for c in here]))
    return Chart(
        key="attacks",
        kind="bars",
        title="Accuracy under each attack",
        caption="Lines on the bars are 95 % intervals. Attacks without a budget look for the "
        "smallest perturbation that works.",
        x_label="attack",
        y_label=ACCURACY,
        panels=tuple(panels),
    )


def _heat(view: View) -> Chart:
    panels = []
    for budget in dict.fromkeys(c.budget for c in view.conditions):
        here = [c for c in view.conditions if c.budget == budget]
        placed = [(f"{c.attack} · {c.rung}", c) for c in here]
        panels.append(_panel(view, here[0].size, placed))
    return Chart(
        key="heat",
        kind="heat",
        title="Defences by attacks",
        caption="Accuracy in %, from 0 (dark) to 100 (light).",
        x_label="attack and rung",
        y_label=ACCURACY,
        panels=tuple(panels),
    )
