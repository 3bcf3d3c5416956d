"""The paper's claims, each judged from recorded results by a stated rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from qnad_art.benchmark.records import Rung
from qnad_evaluations.paper.evidence import JUDGED, Evidence
from qnad_evaluations.paper.marks import worst
from qnad_evaluations.paper.rules import (
    Finding,
    carries_over,
    gains_grow,
    inherent_helps,
    optimum,
    optimum_moves,
)

Word = Literal["reproduced", "not reproduced", "only under transfer", "not measured"]


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

    @property
    def mark(self) -> str:
        """The worst of those of the figures that it rests on."""
        return worst(finding.mark for finding in self.findings.values())


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
    def mark(self) -> str:
        """The worst of those of the judgements that decide."""
        return worst(j.mark for j in self.judgements if j.word == self.word)

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
        networks: of :func:`~qnad_evaluations.paper.evidence.networks`.
        again: of :func:`~qnad_evaluations.paper.evidence.trained_again`.
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
                _by_attack(swept, partial(optimum, strategy=strategy)),
            ),
            Claim(
                "The optimum depends on ε",
                method,
                "two ε have different best fractions, and each is above the other's at its own ε",
                _by_attack(swept, partial(optimum_moves, strategy=strategy)),
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
                "tuned: its plan) is above the plain network for both, and leaves neither less "
                "than half of its clean accuracy",
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
