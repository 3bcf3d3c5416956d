"""The rules that decide whether a claim of the paper holds for a network, an attack and a rung.

A difference counts if its interval, paired by image, lies above zero. Where several differences
could make a claim hold (one for each ε, say), their intervals hold together at 95 % (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from qnad_art.benchmark.records import Interval, Rung
from qnad_art.benchmark.report.chart import percent, points
from qnad_art.benchmark.statistics import combined_difference
from qnad_art.paper.evidence import Evidence, Fractions, stacked

RISK = 0.05
RESAMPLES = 5_000


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds on one rung, and the figures behind it."""

    holds: bool
    figures: str


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
            _difference(evidence, (members[best], eps), (members[f], eps), attack, rung, tests)
            for f in (min(curve), largest)
        )
        shown = ", ".join(
            f"{f:g}: {percent(curve[f])}" for f in dict.fromkeys((0.0, best, largest))
        )
        text = f"ε {eps:.3g}, fraction {shown}; rise {points(rise)}, fall {points(fall)}"
        found.append((min(rise.low, fall.low), rise.value, text))
    low, _, text = max(found)
    return Finding(low > 0, text)


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
            _difference(evidence, (chosen[here], here), (chosen[there], here), attack, rung, tests)
            for here, there in (pair, pair[::-1])
        ]
        text = f"best fraction at {shown}; at ε {one:.3g} {points(own[0])}"
        found.append((min(d.low for d in own), f"{text}, at ε {other:.3g} {points(own[1])}"))
    low, text = max(found)
    return Finding(low > 0, text)


@dataclass(frozen=True, order=True)
class _Condition:
    """An attack at a budget, what it costs the plain network, and the defence against it."""

    loss: float
    attack: str
    eps: float
    defence: str


def gains_grow(evidence: Evidence, method: str, rung: Rung) -> Finding | None:
    """The gain where the attack hurts most against the gain where it hurts least."""
    clean, plain = evidence.accuracy(evidence.plain), evidence.plain
    conditions = []
    for attack in evidence.attacks:
        for eps in evidence.budgets(attack, rung):
            left = evidence.accuracy(plain, attack, eps, rung)
            defence = _defence_at(evidence, method, attack, eps, rung)
            if clean is not None and left is not None and defence is not None:
                conditions.append(_Condition(clean.value - left.value, attack, eps, defence))
    if len(conditions) < 2:
        return None
    least, most = min(conditions), max(conditions)
    parts = []
    for weight, where in ((1.0, most), (-1.0, least)):
        for sign, name in ((weight, where.defence), (-weight, plain)):
            parts.append((sign, evidence.correct(name, where.attack, where.eps, rung)))
    outcomes = stacked([part for _, part in parts])
    if outcomes is None:
        return None
    weights = [weight for weight, _ in parts]
    change = combined_difference(list(zip(weights, outcomes, strict=True)), resamples=RESAMPLES)
    gains = [
        f"{c.attack} ε {c.eps:.3g} "
        f"{points(difference(evidence, c.defence, plain, c.attack, c.eps, rung))}"
        for c in (most, least)
    ]
    text = f"most: {gains[0]}; least: {gains[1]}; difference {points(change)}"
    return Finding(change.low > 0, text)


def carries_over(
    pair: tuple[Evidence, Evidence], method: str, attack: str, rung: Rung
) -> Finding | None:
    """Whether what is best for the first network helps both."""
    chosen: dict[float, str | None] = {}
    for eps in pair[0].budgets(attack, rung):
        label = _defence_at(pair[0], method, attack, eps, rung)
        if label is not None:
            chosen[eps] = label
    findings = [_gain_somewhere(e, chosen, attack, rung) for e in pair]
    if findings[0] is None or findings[1] is None:
        return None
    text = f"first: {findings[0].figures}; second: {findings[1].figures}"
    return Finding(findings[0].holds and findings[1].holds, text)


def difference(
    evidence: Evidence,
    defence: str | None,
    against: str | None,
    attack: str | None,
    eps: float | None,
    rung: Rung | None,
    *,
    times: float = 1.0,
    level: float = 1 - RISK,
) -> Interval | None:
    """Accuracy of a defence less ``times`` that of another, paired; ``None`` if one is missing."""
    both = stacked([evidence.correct(name, attack, eps, rung) for name in (defence, against)])
    if both is None:
        return None
    parts = [(1.0, both[0]), (-times, both[1])]
    return combined_difference(parts, resamples=RESAMPLES, level=level)


def _gain_somewhere(
    evidence: Evidence, labels: Mapping[float, str | None], attack: str, rung: Rung
) -> Finding | None:
    """Whether a defence is above the plain network at one ε at least."""
    level = 1 - RISK / max(len(labels), 1)
    gains = {
        eps: gain
        for eps, label in labels.items()
        if (gain := difference(evidence, label, evidence.plain, attack, eps, rung, level=level))
        is not None
    }
    if not gains:
        return None
    eps = max(gains, key=lambda e: (gains[e].low, gains[e].value))
    plain, defended = (
        evidence.accuracy(name, attack, eps, rung) for name in (evidence.plain, labels[eps])
    )
    text = f"{labels[eps]}, ε {eps:.3g}: {percent(plain)} → {percent(defended)}"
    return Finding(gains[eps].low > 0, f"{text}, {points(gains[eps])}")


def _best(curve: dict[float, Interval]) -> float:
    """The fraction with the highest accuracy, the smallest of equals."""
    return max(curve, key=lambda fraction: (curve[fraction].value, -fraction))


def _curves(
    evidence: Evidence, members: Fractions, attack: str, rung: Rung
) -> dict[float, dict[float, Interval]]:
    """Accuracy by ε and fraction, where 0, the largest and one between were measured."""
    curves = {}
    for eps in evidence.budgets(attack, rung):
        known = {f: evidence.accuracy(label, attack, eps, rung) for f, label in members.items()}
        curve = {fraction: accuracy for fraction, accuracy in known.items() if accuracy is not None}
        if len(curve) > 2 and 0.0 in curve:
            curves[eps] = curve
    return curves


def _difference(
    evidence: Evidence,
    first: tuple[str, float],
    second: tuple[str, float],
    attack: str,
    rung: Rung,
    tests: int,
) -> Interval:
    """Between two measured cells, one of several intervals that hold together."""
    both = stacked([evidence.correct(name, attack, eps, rung) for name, eps in (first, second)])
    assert both is not None
    parts = [(1.0, both[0]), (-1.0, both[1])]
    return combined_difference(parts, resamples=RESAMPLES, level=1 - RISK / tests)


def _defence_at(evidence: Evidence, method: str, attack: str, eps: float, rung: Rung) -> str | None:
    """The tuned defence, or the uniform one whose fraction is best there."""
    if method == "tuned":
        return evidence.tuned if evidence.get(evidence.tuned, attack, eps, rung) else None
    known = {
        label: accuracy.value
        for fraction, label in evidence.fractions("qnad-uniform").items()
        if fraction and (accuracy := evidence.accuracy(label, attack, eps, rung)) is not None
    }
    return max(known, key=lambda label: known[label]) if known else None
