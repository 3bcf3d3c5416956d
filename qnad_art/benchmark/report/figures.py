"""The figures of a report: what is in each, from the measured results and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from qnad_art.benchmark.records import CurvePoint, Interval
from qnad_art.benchmark.report.chart import COLOURS, Chart, Panel, Point, Series
from qnad_art.benchmark.report.view import NO_BUDGET, Budget, Condition, View, norm_name

Families = Sequence[tuple[str, Sequence[tuple[float, str]]]]
"""Defences that differ only in how much crosstalk they ask for: name, then (fraction, defence)."""

BANDS = "Bands are 95 % intervals."
ACCURACY = "accuracy (%)"
SAME_COLOUR = 3 * len(COLOURS)
"""Looks so far apart have one colour, and other markers and dashes."""


def charts_of(view: View, families: Families) -> list[Chart]:
    """Every figure that the results of one model, data set and device fill."""
    built = (
        _against_budget(view),
        _against_fraction(view, families),
        _against_samples(view),
        _pareto(view),
        _bars(view),
        _heat(view),
    )
    return [chart for chart in built if chart.panels]


def _series(
    view: View, points: Callable[[str], Iterable[Point | None]], defences: Iterable[str] = ()
) -> tuple[Series, ...]:
    """A series for each defence that has any of its points."""
    found = []
    for defence in defences or view.defences:
        present = tuple(point for point in points(defence) if point is not None)
        if present:
            found.append(Series(view.label(defence), view.look(defence), present))
    return tuple(found)


def _point(x: float | str, accuracy: Interval | None) -> Point | None:
    return None if accuracy is None else Point(x, accuracy)


def _against_budget(view: View) -> Chart:
    panels = []
    budgeted = [(c, c.budget) for c in view.conditions if c.budget is not None]
    for attack, rung, norm in dict.fromkeys((c.attack, c.rung, b.norm) for c, b in budgeted):
        here = [(c, b) for c, b in budgeted if (c.attack, c.rung, b.norm) == (attack, rung, norm)]

        def points(defence: str, here: list[tuple[Condition, Budget]] = here) -> list[Point | None]:
            measured = [_point(b.eps, view.accuracy(defence, c)) for c, b in here]
            clean = _point(0.0, view.accuracy(defence))
            return [clean, *measured] if any(measured) else []

        panels.append(Panel(f"{attack} ({norm_name(norm)}) · {rung}", _series(view, points)))
    return Chart(
        key="epsilon",
        kind="lines",
        title="Accuracy against the attack's budget ε",
        caption=f"At ε = 0 the images are clean. {BANDS}",
        x_label="ε",
        y_label=ACCURACY,
        panels=tuple(panels),
    )


def _attacks_and_rungs(conditions: Iterable[Condition]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((c.attack, c.rung) for c in conditions))


def _against_fraction(view: View, families: Families) -> Chart:
    panels = []
    names = ["clean", *map(str, view.budgets), NO_BUDGET]
    for family, members in families:
        known = [(fraction, defence) for fraction, defence in members if defence in view.defences]
        if len(known) < 2:
            continue
        for attack, rung in _attacks_and_rungs(view.conditions):
            wanted: list[Condition | None] = [None]
            wanted += [c for c in view.conditions if (c.attack, c.rung) == (attack, rung)]
            curves = []
            for condition in wanted:
                points = [_point(f, view.accuracy(defence, condition)) for f, defence in known]
                present = tuple(point for point in points if point is not None)
                name = "clean" if condition is None else condition.size
                if present:
                    curves.append(Series(name, names.index(name), present))
            if any(len(curve.points) > 1 for curve in curves):
                title = f"{_flagged(view, family, known)} · {attack} · {rung}"
                panels.append(Panel(title, tuple(curves)))
    return Chart(
        key="fraction",
        kind="lines",
        title="Accuracy against the fraction of weights under crosstalk",
        caption=f"One curve for each ε. The fraction is the one asked for. {BANDS}",
        x_label="fraction of weights",
        y_label=ACCURACY,
        panels=tuple(panels),
    )


def _flagged(view: View, family: str, members: Iterable[tuple[float, str]]) -> str:
    failed = [f"{fraction:.4g}" for fraction, defence in members if view.failed(defence)]
    return f"{family} (unreliable at {', '.join(failed)})" if failed else family


def _against_samples(view: View) -> Chart:
    panels = []
    gradients = (("true", ""), ("unsaturated", ", gradients through saturation"))
    for condition in (c for c in view.conditions if c.rung == "adaptive"):
        curves = []
        for defence in view.defences:
            for number, (kind, remark) in enumerate(gradients):
                points = tuple(
                    Point(float(p.samples), p.accuracy)
                    for p in _curve(view, defence, condition)
                    if p.gradients == kind
                )
                look = view.look(defence) + number * SAME_COLOUR
                if len(points) > 1:
                    curves.append(Series(view.label(defence) + remark, look, points))
        if curves:
            panels.append(Panel(f"{condition.attack} · {condition.size}", tuple(curves)))
    return Chart(
        key="samples",
        kind="lines",
        title="Accuracy against the draws that the adaptive attack averages over (EOT)",
        caption=(
            "Accuracy under the attack with so many draws in each gradient, on draws of the "
            "attacker’s own. The figure of the adaptive rung is usually lower: it takes the best "
            "of these attacks for each image, and is scored on fresh draws. These points have no "
            "intervals. Defences without noise have no curve."
            + (" The curve of the first seed is shown." if _many_seeds(view) else "")
        ),
        x_label="draws a gradient",
        y_label=ACCURACY,
        panels=tuple(panels),
        log=True,
    )


def _curve(view: View, defence: str, condition: Condition) -> Sequence[CurvePoint]:
    measured = view.of(defence, condition)
    return measured[0].curve if measured else ()


def _many_seeds(view: View) -> bool:
    return len({result.cell.seed for result in view.results}) > 1


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
        curves = tuple(
            Series(
                view.label(defence),
                view.look(defence),
                (Point(clean, left, _remark((clean.value, left.value) in front, condition)),),
            )
            for defence, clean, condition, left in found
        )
        if curves:
            panels.append(Panel(str(budget), curves, tuple(front)))
    return Chart(
        key="pareto",
        kind="scatter",
        title="Clean accuracy and what all attacks leave",
        caption=(
            "Each defence under all attacks measured on it at this budget together, without the "
            "rungs persistent and seed-known: an image counts where none breaks it. The dotted "
            "line joins the defences that no other beats in both (the Pareto front), unreliable "
            "ones left out. Bars are 95 % intervals."
        ),
        x_label="clean accuracy (%)",
        y_label="accuracy under attack (%)",
        panels=tuple(panels),
    )


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places that no other beats in one coordinate without losing in the other."""
    best = [
        p for p in set(places) if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in places)
    ]
    return sorted(best)


def _remark(first: bool, condition: Condition) -> str:
    attack = f"strongest: {condition.attack}, {condition.rung}"
    return f"on the front; {attack}" if first else attack


def _bars(view: View) -> Chart:
    panels = []
    for rung, budget in dict.fromkeys((c.rung, c.budget) for c in view.conditions):
        here = [c for c in view.conditions if (c.rung, c.budget) == (rung, budget)]

        def points(defence: str, here: list[Condition] = here) -> list[Point | None]:
            return [_point(c.attack, view.accuracy(defence, c)) for c in here]

        panels.append(Panel(f"{rung} · {here[0].size}", _series(view, points)))
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

        def points(defence: str, here: list[Condition] = here) -> list[Point | None]:
            return [_point(f"{c.attack} · {c.rung}", view.accuracy(defence, c)) for c in here]

        panels.append(Panel(here[0].size, _series(view, points)))
    return Chart(
        key="heat",
        kind="heat",
        title="Defences by attacks",
        caption="Accuracy in %, from 0 (dark) to 100 (light).",
        x_label="attack and rung",
        y_label=ACCURACY,
        panels=tuple(panels),
    )
