"""The paper's claims, each judged from recorded results by a stated rule.

A difference counts if its interval, paired by image, lies above zero. Where several differences
could make a claim hold (one for each ε, say), their intervals hold together at 95 % (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from qnad_art.benchmark.records import Interval, Rung
from qnad_art.benchmark.report.chart import percent, points
from qnad_art.benchmark.statistics import combined_difference
from qnad_art.paper.evidence import Evidence, Fractions, stacked

Word = Literal["reproduced", "not reproduced", "only under transfer", "not measured"]
JUDGED: tuple[Rung, Rung] = ("transfer", "adaptive")
RISK = 0.05
RESAMPLES = 10_000


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds on one rung, and the figures behind it."""

    holds: bool
    figures: str


@dataclass(frozen=True)
class Judgement:
    """A claim for one network and attack (all attacks for claims that compare them).

    Args:
        findings: by rung; a rung that was not measured is missing.
    """

    network: str
    attack: str
    findings: dict[Rung, Finding]

    @property
    def word(self) -> Word:
        """The verdict: reproduced on both rungs, under transfer only, or not."""
        transfer, adaptive = (self.findings.get(rung) for rung in JUDGED)
        if transfer is None or adaptive is None:
            return "not measured"
        if not transfer.holds:
            return "not reproduced"
        return "reproduced" if adaptive.holds else "only under transfer"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, for the paper's crosstalk (uniform) or for tuned crosstalk."""

    text: str
    method: str
    rule: str
    judgements: tuple[Judgement, ...]

    @property
    def word(self) -> Word:
        """Over all networks and attacks that were measured: the weakest of their verdicts."""
        order: tuple[Word, ...] = ("not reproduced", "only under transfer", "reproduced")
        words = {judgement.word for judgement in self.judgements}
        return next((word for word in order if word in words), "not measured")

    @property
    def count(self) -> str:
        """``2 of 9``: how many are reproduced."""
        measured = [j.word for j in self.judgements if j.word != "not measured"]
        return f"{measured.count('reproduced')} of {len(measured)}"


def claims(
    networks: Sequence[Evidence], again: Sequence[tuple[Evidence, Evidence]] = ()
) -> list[Claim]:
    """All claims.

    Args:
        networks: of :func:`~qnad_art.paper.evidence.networks`.
        again: of :func:`~qnad_art.paper.evidence.trained_again`.
    """
    made = [
        Claim(
            "Inherent noise improves accuracy under attack",
            "inherent noise",
            "at one ε or more, accuracy with inherent noise is above that of the plain network",
            _by_attack(networks, inherent_helps),
        )
    ]
    for method, strategy in (("uniform", "qnad-uniform"), ("tuned", "qnad-tuned")):
        swept = [network for network in networks if len(network.fractions(strategy)) > 2]
        made += [
            Claim(
                "With more crosstalk accuracy rises to an optimum, then falls",
                method,
                "at one ε or more, accuracy at the best fraction is above that at 0 and above "
                "that at the largest",
                _by_attack(swept, lambda e, a, r, s=strategy: optimum(e, e.fractions(s), a, r)),
            ),
            Claim(
                "The optimum depends on ε",
                method,
                "two ε have different best fractions, and each is above the other's at its own ε",
                _by_attack(
                    swept, lambda e, a, r, s=strategy: optimum_moves(e, e.fractions(s), a, r)
                ),
            ),
        ]
    for method in ("uniform", "tuned"):
        made.append(
            Claim(
                "Larger gains where the attack hurts more",
                method,
                "the gain in points where the plain network loses most is above that where it "
                "loses least (over all attacks and ε; uniform: at its best fraction each)",
                tuple(
                    Judgement(e.network, "all attacks", _found(gains_grow, e, method))
                    for e in networks
                ),
            )
        )
    for method in ("uniform", "tuned"):
        made.append(
            Claim(
                "Noise settings carry over to a network of the same architecture trained "
                "differently",
                method,
                "at one ε or more, what is best for the first network (uniform: its best fraction; "
                "tuned: its plan) is above the plain network for both",
                tuple(
                    Judgement(
                        first.network,
                        attack,
                        _found(carries_over, (first, second), method, attack),
                    )
                    for first, second in again
                    for attack in first.attacks
                ),
            )
        )
    return made


def inherent_helps(evidence: Evidence, attack: str, rung: Rung) -> Finding | None:
    """Inherent noise against the plain network, at every ε."""
    return _gain_somewhere(
        evidence, dict.fromkeys(evidence.budgets(attack, rung), evidence.inherent), attack, rung
    )


def optimum(evidence: Evidence, members: Fractions, attack: str, rung: Rung) -> Finding | None:
    """Whether the best fraction is neither 0 nor the largest."""
    curves = _curves(evidence, members, attack, rung)
    if not curves:
        return None
    tests = 2 * sum(len(curve) for curve in curves.values())
    found = []
    for eps, curve in curves.items():
        best, largest = max(curve, key=lambda f: (curve[f].value, -f)), max(curve)
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


def optimum_moves(
    evidence: Evidence, members: Fractions, attack: str, rung: Rung
) -> Finding | None:
    """Whether two ε have best fractions that differ beyond chance."""
    curves = _curves(evidence, members, attack, rung)
    if len(curves) < 2:
        return None
    best = {eps: max(c, key=lambda f, c=c: (c[f].value, -f)) for eps, c in curves.items()}
    tests = len(curves) * (len(curves) - 1) * max(len(curve) for curve in curves.values())
    shown = ", ".join(f"ε {eps:.3g}: {fraction:g}" for eps, fraction in best.items())
    found = [(float("-inf"), f"best fraction at {shown}")]
    for one, other in combinations(best, 2):
        if best[one] == best[other]:
            continue
        own = [
            _difference(evidence, (members[best[here]], here), (members[best[there]], here), *where)
            for here, there in ((one, other), (other, one))
            for where in [(attack, rung, tests)]
        ]
        text = f"best fraction at {shown}; at ε {one:.3g} {points(own[0])}"
        found.append((min(d.low for d in own), f"{text}, at ε {other:.3g} {points(own[1])}"))
    low, text = max(found)
    return Finding(low > 0, text)


def gains_grow(evidence: Evidence, method: str, rung: Rung) -> Finding | None:
    """The gain where the attack hurts most against the gain where it hurts least."""
    clean = evidence.accuracy(evidence.plain)
    conditions = []
    for attack in evidence.attacks:
        for eps in evidence.budgets(attack, rung):
            left = evidence.accuracy(evidence.plain, attack, eps, rung)
            defence = _defence_at(evidence, method, attack, eps, rung)
            if clean is not None and left is not None and defence is not None:
                conditions.append((clean.value - left.value, attack, eps, defence))
    if len(conditions) < 2:
        return None
    (_, *easy), (_, *hard) = min(conditions), max(conditions)
    signed = [
        (sign, evidence.correct(defence, attack, eps, rung))
        for weight, (attack, eps, label) in ((1.0, hard), (-1.0, easy))
        for sign, defence in ((weight, label), (-weight, evidence.plain))
    ]
    present = stacked([outcomes for _, outcomes in signed])
    if present is None:
        return None
    weights = [weight for weight, _ in signed]
    change = combined_difference(list(zip(weights, present, strict=True)), resamples=RESAMPLES)
    gains = []
    for attack, eps, label in (hard, easy):
        gain = _difference(
            evidence, (label, eps), (evidence.plain or "", eps), attack, rung, tests=1
        )
        gains.append(f"{attack} ε {eps:.3g} {points(gain)}")
    text = f"most: {gains[0]}; least: {gains[1]}; difference {points(change)}"
    return Finding(change.low > 0, text)


def carries_over(
    pair: tuple[Evidence, Evidence], method: str, attack: str, rung: Rung
) -> Finding | None:
    """Whether what is best for the first network helps both."""
    chosen = {}
    for eps in pair[0].budgets(attack, rung):
        label = _defence_at(pair[0], method, attack, eps, rung)
        if label is not None:
            chosen[eps] = label
    findings = [_gain_somewhere(e, dict(chosen), attack, rung) for e in pair]
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


def _by_attack(
    networks: Sequence[Evidence], judge: Callable[[Evidence, str, Rung], Finding | None]
) -> tuple[Judgement, ...]:
    return tuple(
        Judgement(e.network, attack, _found(judge, e, attack))
        for e in networks
        for attack in e.attacks
    )


def _found(judge: Callable[..., Finding | None], *what: object) -> dict[Rung, Finding]:
    findings = {rung: judge(*what, rung) for rung in JUDGED}
    return {rung: finding for rung, finding in findings.items() if finding is not None}


def _gain_somewhere(
    evidence: Evidence, labels: dict[float, str | None], attack: str, rung: Rung
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
