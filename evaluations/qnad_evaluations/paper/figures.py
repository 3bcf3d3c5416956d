"""The paper's figures from recorded results: accuracy against ε, and against the fraction."""

from __future__ import annotations

from collections.abc import Iterable

from qnad_art.benchmark.records import Rung
from qnad_art.benchmark.report.chart import Chart, Panel, Point, Series
from qnad_evaluations.paper.evidence import JUDGED, Evidence, Fractions, Where
from qnad_evaluations.paper.marks import LEGEND, marked, worst
from qnad_evaluations.paper.table import PUBLISHED

ACCURACY = "accuracy (%)"
BANDS = f"Bands are 95 % intervals. A mark is the worst of what is drawn: {LEGEND}"


def charts(evidence: Evidence) -> list[Chart]:
    """Both kinds of figure of a network, as far as it was measured."""
    known = PUBLISHED.get(evidence.network)
    title = known.title if known else evidence.network
    panels = (
        Chart(
            key=f"{evidence.network}-epsilon",
            kind="lines",
            title=f"{title}: accuracy against ε",
            caption=f"At ε = 0 the images are clean. {BANDS}",
            x_label="ε",
            y_label=ACCURACY,
            panels=_against_budget(evidence),
        ),
        Chart(
            key=f"{evidence.network}-fraction",
            kind="lines",
            title=f"{title}: accuracy against the fraction of weights under crosstalk",
            caption=f"At fraction 0 there is inherent noise only. {BANDS}",
            x_label="fraction of weights",
            y_label=ACCURACY,
            panels=_against_fraction(evidence),
        ),
    )
    return [chart for chart in panels if chart.panels]


def _against_budget(evidence: Evidence) -> tuple[Panel, ...]:
    names = {
        "plain": evidence.plain,
        "inherent noise": evidence.inherent,
        **{
            f"noise + uniform crosstalk, {fraction:.0%} of weights": label
            for fraction, label in evidence.fractions("qnad-uniform").items()
            if fraction
        },
        **{f"noise + {label} crosstalk": label for label in evidence.operating_points},
    }
    panels = []
    for rung in JUDGED:
        for attack in evidence.attacks:
            curves = []
            for look, (name, label) in enumerate(names.items()):
                points = _points(evidence, label, attack, rung)
                # Gaps would be drawn as straight lines, above what was measured at every ε.
                if {point.x for point in points} >= set(evidence.budgets(attack, rung)):
                    mark = _mark(evidence, [label])
                    curves.append(Series(marked(name, mark), look, points))
            if curves:
                panels.append(Panel(f"{attack} · {rung}", tuple(curves)))
    return tuple(panels)


def _mark(evidence: Evidence, labels: Iterable[str | None]) -> str:
    """The worst of all their figures, so that one name has one mark in all panels."""
    return worst(
        evidence.mark(Where(label, attack, eps, rung))
        for label in labels
        for rung in JUDGED
        for attack in evidence.attacks
        for eps in evidence.budgets(attack, rung)
    )


def _points(evidence: Evidence, label: str | None, attack: str, rung: Rung) -> tuple[Point, ...]:
    clean = evidence.accuracy(label)
    found = [] if clean is None else [Point(0.0, clean)]
    for eps in evidence.budgets(attack, rung):
        accuracy = evidence.accuracy(label, attack, eps, rung)
        found += [] if accuracy is None else [Point(eps, accuracy)]
    return tuple(found)


def _against_fraction(evidence: Evidence) -> tuple[Panel, ...]:
    panels = []
    for name, strategy in (("uniform", "qnad-uniform"), ("tuned", "qnad-tuned")):
        members = evidence.fractions(strategy)
        for rung in JUDGED if len(members) > 2 else ():
            for attack in evidence.attacks:
                panel = _sweep(evidence, members, attack, rung)
                if panel:
                    title = f"{name} · {attack} · {rung}"
                    panels.append(Panel(marked(title, _mark(evidence, members.values())), panel))
    return tuple(panels)


def _sweep(evidence: Evidence, members: Fractions, attack: str, rung: Rung) -> tuple[Series, ...]:
    """A curve for each ε, and one for clean images."""
    all_budgets = sorted({e for a in evidence.attacks for e in evidence.budgets(a, rung)})
    curves = []
    for eps in evidence.budgets(attack, rung):
        known = [(f, evidence.accuracy(d, attack, eps, rung)) for f, d in members.items()]
        points = tuple(Point(f, accuracy) for f, accuracy in known if accuracy is not None)
        if len(points) > 1:
            curves.append(Series(f"ε {eps:.3g}", 1 + all_budgets.index(eps), points))
    clean = [(f, evidence.accuracy(d)) for f, d in members.items()]
    shown = tuple(Point(f, accuracy) for f, accuracy in clean if accuracy is not None)
    return (Series("clean", 0, shown), *curves) if curves else ()
