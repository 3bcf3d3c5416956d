"""The rules that decide whether a claim of the paper holds for a network, an attack and a rung.

A difference counts if its interval, paired by image, lies above zero. Where several differences
could make a claim hold (one for each ε, or for each fraction that the best is chosen from), their
intervals hold together at 95 % (Bonferroni). A network that has lost more than half of its clean
accuracy is ruined, whatever it holds under attack: no gain counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from qnad_art.benchmark.records import Interval, Result, Rung
from qnad_art.benchmark.report.chart import percent, points
from qnad_art.benchmark.statistics.intervals import combined_difference, scored
from qnad_evaluations.paper.evidence import Evidence, Fractions, Where
from qnad_evaluations.paper.marks import worst

RISK = 0.05
RESAMPLES = 5_000
KEPT = 0.5
"""Share of the plain network's clean accuracy below which a network is ruined."""


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds on one rung, the figures behind it, and the worst of their marks."""

    holds: bool
    figures: str
    mark: str = ""


def inherent_helps(evidence: Evidence, attack: str, rung: Rung) -> Finding | None:
    """Inherent noise against the plain network, at every ε."""
    return _gain_somewhere(
        evidence, dict.fromkeys(evidence.budgets(attack, rung), evidence.inherent), attack, rung
    )


def optimum(evidence: Evidence, attack: str, rung: Rung, *, strategy: str) -> Finding | None:
    """Whether the best fraction is neither 0 nor the largest."""
    members = evidence.fractions(strategy)
    curves = _curves(evidence, members, attack, rung)
    if not curves:
        return None
    tests = 2 * sum(len(curve) for curve in curves.values())
    found = []
    for eps, curve in curves.items():
        best, largest = _best(curve), max(curve)
        rise, fall = (
            _fraction_gain(evidence, (members[best], members[f]), (attack, eps, rung), tests)
            for f in (min(curve), largest)
        )
        shown = ", ".join(
            f"{f:g}: {percent(curve[f])}" for f in dict.fromkeys((0.0, best, largest))
        )
        text = f"ε {eps:.3g}, fraction {shown}; rise {points(rise)}, fall {points(fall)}"
        found.append((min(rise.low, fall.low), rise.value, text))
    low, _, text = max(found)
    return Finding(low > 0, text, _curve_mark(evidence, members, curves, attack, rung))


def optimum_moves(evidence: Evidence, attack: str, rung: Rung, *, strategy: str) -> Finding | None:
    """Whether two ε have best fractions that differ beyond chance."""
    members = evidence.fractions(strategy)
    curves = _curves(evidence, members, attack, rung)
    if len(curves) < 2:
        return None
    best = {eps: _best(curve) for eps, curve in curves.items()}
    tests = len(curves) * (len(curves) - 1) * max(len(curve) for curve in curves.values())
    shown = ", ".join(f"ε {eps:.3g}: {fraction:g}" for eps, fraction in best.items())
    found = [(float("-inf"), f"best fraction at {shown}")]
    for pair in combinations(curves, 2):
        one, other = pair
        alike = curves[one].keys() & curves[other].keys()  # a run may not be finished
        chosen = {eps: members[_best({f: curves[eps][f] for f in alike})] for eps in pair}
        if chosen[one] == chosen[other]:
            continue
        own = [
            _fraction_gain(evidence, (chosen[here], chosen[there]), (attack, here, rung), tests)
            for here, there in (pair, pair[::-1])
        ]
        text = f"best fraction at {shown}; at ε {one:.3g} {points(own[0])}"
        found.append((min(d.low for d in own), f"{text}, at ε {other:.3g} {points(own[1])}"))
    low, text = max(found)
    return Finding(low > 0, text, _curve_mark(evidence, members, curves, attack, rung))


@dataclass(frozen=True, order=True)
class _Condition:
    """An attack at a budget, what it costs the plain network, and the defence against it.

    ``both``: results of the defence and of the plain network.
    """

    loss: float
    attack: str
    eps: float
    defence: str
    both: Sequence[Result] = field(compare=False)
    mark: str


def gains_grow(evidence: Evidence, method: str, rung: Rung) -> Finding | None:
    """The gain where the attack hurts most against the gain where it hurts least."""
    clean = evidence.accuracy(evidence.plain)
    conditions = []
    for attack in evidence.attacks:
        for eps in evidence.budgets(attack, rung):
            defence = _defence_at(evidence, method, attack, eps, rung)
            both = _with_plain(evidence, defence, attack, eps, rung)
            if clean is not None and both is not None:
                loss = clean.value - both[1].accuracy.value
                mark = _mark_with_plain(evidence, defence, attack, eps, rung)
                conditions.append(_Condition(loss, attack, eps, str(defence), both, mark))
    if len(conditions) < 2:
        return None
    least, most = min(conditions), max(conditions)
    signs = ((1.0, -1.0), (-1.0, 1.0))
    parts = [
        (sign, scored(result))
        for condition, weights in zip((most, least), signs, strict=True)
        for sign, result in zip(weights, condition.both, strict=True)
    ]
    level = 1 - RISK / _choices(evidence, method) ** 2  # one of the best at either end
    change = combined_difference(parts, resamples=RESAMPLES, level=level)
    gains = [f"{c.attack} ε {c.eps:.3g} {points(difference(c.both))}" for c in (most, least)]
    text = f"most: {gains[0]}; least: {gains[1]}; difference {points(change)}"
    return Finding(change.low > 0, text, worst((most.mark, least.mark)))


def carries_over(
    pair: tuple[Evidence, Evidence], method: str, attack: str, rung: Rung
) -> Finding | None:
    """Whether what is best for the first network helps both."""
    chosen: dict[float, str | None] = {}
    for eps in pair[0].budgets(attack, rung):
        label = _defence_at(pair[0], method, attack, eps, rung)
        if label is not None:
            chosen[eps] = label
    choices = _choices(pair[0], method)  # for both: chosen on the first, but on the same images
    findings = [_gain_somewhere(e, chosen, attack, rung, choices=choices) for e in pair]
    if findings[0] is None or findings[1] is None:
        return None
    text = f"first: {findings[0].figures}; second: {findings[1].figures}"
    holds = findings[0].holds and findings[1].holds
    return Finding(holds, text, worst((findings[0].mark, findings[1].mark)))


def difference(both: Sequence[Result], *, times: float = 1.0, level: float = 1 - RISK) -> Interval:
    """Accuracy of the first less ``times`` that of the second, paired by image."""
    first, second = map(scored, both)
    parts = [(1.0, first), (-times, second)]
    return combined_difference(parts, resamples=RESAMPLES, level=level)


def _with_plain(
    evidence: Evidence, defence: str | None, attack: str, eps: float, rung: Rung
) -> list[Result] | None:
    """A defence and the plain network of the same record."""
    return evidence.together(*(Where(d, attack, eps, rung) for d in (defence, evidence.plain)))


def _mark_with_plain(
    evidence: Evidence, defence: str | None, attack: str, eps: float, rung: Rung
) -> str:
    return evidence.mark(*(Where(d, attack, eps, rung) for d in (defence, evidence.plain)))


def _gain_somewhere(
    evidence: Evidence,
    labels: Mapping[float, str | None],
    attack: str,
    rung: Rung,
    *,
    choices: int = 1,
) -> Finding | None:
    """Whether a defence is above the plain network at one ε at least.

    ``choices``: of how many the defences are the best.
    """
    level = 1 - RISK / max(choices * len(labels), 1)
    measured = {
        eps: both
        for eps, label in labels.items()
        if (both := _with_plain(evidence, label, attack, eps, rung)) is not None
    }
    if not measured:
        return None
    gains = {eps: difference(both, level=level) for eps, both in measured.items()}
    lost = {label: _clean_if_ruined(evidence, label) for label in labels.values()}
    eps = max(gains, key=lambda e: (not lost[labels[e]], gains[e].low, gains[e].value))
    defended, plain = (percent(result.accuracy) for result in measured[eps])
    ruin = lost[labels[eps]]
    text = f"{labels[eps]}, ε {eps:.3g}: {plain} → {defended}, {points(gains[eps])}{ruin}"
    marks = (_mark_with_plain(evidence, labels[e], attack, e, rung) for e in measured)
    return Finding(gains[eps].low > 0 and not ruin, text, worst(marks))


def _clean_if_ruined(evidence: Evidence, defence: str | None) -> str:
    """What a defence leaves of clean accuracy, if that is too little for a gain to mean any."""
    clean = evidence.together(Where(defence), Where(evidence.plain))
    if clean is None or clean[0].accuracy.value >= KEPT * clean[1].accuracy.value:
        return ""
    left, plain = (percent(result.accuracy.value) for result in clean)
    return f"; ruined: clean {plain} → {left}"


def _best(curve: dict[float, Interval]) -> float:
    """The fraction with the highest accuracy, the smallest of equals."""
    return max(curve, key=lambda fraction: (curve[fraction].value, -fraction))


def _curves(
    evidence: Evidence, members: Fractions, attack: str, rung: Rung
) -> dict[float, dict[float, Interval]]:
    """Accuracy by ε and fraction, where 0, the largest and one between were measured."""
    curves = {}
    for eps in evidence.budgets(attack, rung):
        known = evidence.accuracies(members.values(), attack, eps, rung)
        curve = {fraction: known[label] for fraction, label in members.items() if label in known}
        if len(curve) > 2 and 0.0 in curve:
            curves[eps] = curve
    return curves


def _curve_mark(
    evidence: Evidence,
    members: Fractions,
    curves: Mapping[float, Mapping[float, Interval]],
    attack: str,
    rung: Rung,
) -> str:
    """Of all the figures of the curves: each may have been the best."""
    return worst(
        evidence.mark(*(Where(members[f], attack, eps, rung) for f in curve))
        for eps, curve in curves.items()
    )


def _fraction_gain(
    evidence: Evidence, labels: tuple[str, str], under: tuple[str, float, Rung], tests: int
) -> Interval:
    """Between two fractions of a curve, one of several intervals that hold together."""
    both = evidence.together(*(Where(label, *under) for label in labels))
    assert both is not None  # a curve is of one record
    return difference(both, level=1 - RISK / tests)


def _defence_at(evidence: Evidence, method: str, attack: str, eps: float, rung: Rung) -> str | None:
    """The tuned defence, or the uniform one whose fraction is best there."""
    if method == "tuned":
        return evidence.tuned
    return best_uniform(evidence, attack, eps, (rung,))


def _choices(evidence: Evidence, method: str) -> int:
    """Of how many defences :func:`_defence_at` takes the best."""
    return 1 if method == "tuned" else max(len(_uniform(evidence)), 1)


def _uniform(evidence: Evidence) -> list[str]:
    """The uniform defences, without inherent noise alone."""
    return [label for f, label in evidence.fractions("qnad-uniform").items() if f]


def best_uniform(evidence: Evidence, attack: str, eps: float, rungs: Sequence[Rung]) -> str | None:
    """The uniform defence whose fraction is best under all ``rungs``; never inherent."""
    left = evidence.at_worst(_uniform(evidence), attack, eps, rungs)
    return max(left, key=lambda label: left[label].mean(), default=None)
