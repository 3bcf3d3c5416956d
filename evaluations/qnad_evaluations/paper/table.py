"""Table I of the paper beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qnad_art.benchmark.records import Interval, Result
from qnad_art.benchmark.statistics.intervals import RelativeImprovement, relative_improvement
from qnad_art.benchmark.statistics.worst import gain_at_worst
from qnad_evaluations.paper.evidence import JUDGED, Evidence, Where
from qnad_evaluations.paper.marks import worst
from qnad_evaluations.paper.rules import best_uniform, difference

Family = Literal["FGSM", "PGD"]
INHERENT, UNIFORM = "inherent noise", "uniform, best fraction"


@dataclass(frozen=True)
class Published:
    """What the paper prints of a network.

    Args:
        title: network and data.
        eps: at which Table I states its gains.
        clean: accuracy of the plain network.
        improvement: relative, of QNAD, by attack.
        inherent: relative, of inherent noise alone, at most.
        clean_cost: accuracy on clean images that a defence may lose here; the paper's is unknown.
    """

    title: str
    eps: float
    clean: float
    improvement: dict[Family, float]
    inherent: dict[Family, float]
    clean_cost: float


PUBLISHED: dict[str, Published] = {
    "lenet5": Published(
        "LeNet, MNIST",
        0.3,
        0.982,
        {"FGSM": 2.3517, "PGD": 2.6828},
        {"FGSM": 1.44, "PGD": 1.83},
        0.01,
    ),
    "alexnet": Published(
        "AlexNet, CIFAR-10",
        6 / 255,
        0.737,
        {"FGSM": 0.3461, "PGD": 0.4216},
        {"FGSM": 0.26, "PGD": 0.28},
        0.06,
    ),
    "vgg16": Published(
        "VGG16, CIFAR-100",
        6 / 255,
        0.643,
        {"FGSM": 0.5807, "PGD": 0.5925},
        {"FGSM": 0.43, "PGD": 0.44},
        0.06,
    ),
}
"""By the labels of the plain networks. Kundu et al., IEEE HOST 2024, Table I and section IV."""


@dataclass(frozen=True)
class Row:
    """A cell of Table I for one defence.

    Args:
        published: the paper's relative improvement.
        plain, defended: accuracy under transfer, the paper's setting.
        gain: their difference.
        ratio: the relative improvement, and whether it means anything.
        above: defended less what the paper's improvement would make of the plain accuracy.
        clean_cost: clean accuracy of the plain network less that of the defended one.
        hardest: defence that is judged on the rungs transfer and adaptive together; another one
            only where it is chosen by its accuracy there.
        worst: its gain there, each image under the attack that breaks it.
        mark: of the audit.
    """

    network: str
    attack: str
    method: str
    defence: str
    published: float
    plain: Interval
    defended: Interval
    gain: Interval
    ratio: RelativeImprovement
    above: Interval
    clean_cost: Interval | None
    hardest: str | None
    worst: Interval | None
    mark: str

    @property
    def tuned(self) -> bool:
        """Whether it is one of the operating points of tuned crosstalk."""
        return self.method not in (INHERENT, UNIFORM)

    @property
    def within_limit(self) -> bool | None:
        """Whether it loses no more clean accuracy than it may; ``None``: not measured."""
        if self.clean_cost is None:
            return None
        return self.clean_cost.value <= PUBLISHED[self.network].clean_cost + 1e-9


def table_rows(networks: Sequence[Evidence]) -> list[Row]:
    """Inherent noise, the best uniform fraction and every tuned crosstalk, for every attack."""
    rows = []
    for evidence in networks:
        published = PUBLISHED.get(evidence.network)
        if published is None:
            continue
        for attack in evidence.attacks:
            family: Family = "FGSM" if attack.startswith("fgsm") else "PGD"
            uniform = [
                best_uniform(evidence, attack, published.eps, rungs)
                for rungs in (JUDGED[:1], JUDGED)
            ]
            tuned = {label: [label, label] for label in evidence.operating_points}
            chosen: dict[str, Sequence[str | None]] = {
                INHERENT: [evidence.inherent] * 2,
                UNIFORM: uniform,
                **tuned,
            }
            for method, (defence, hardest) in chosen.items():
                by_family = published.inherent if method == INHERENT else published.improvement
                under = (attack, published.eps)
                row = _row(evidence, under, method, defence, hardest, by_family[family])
                rows += [] if row is None else [row]
    return rows


def _row(
    evidence: Evidence,
    under: tuple[str, float],
    method: str,
    defence: str | None,
    hardest: str | None,
    printed: float,
) -> Row | None:
    cells = [Where(name, *under, "transfer") for name in (defence, evidence.plain)]
    transfer = evidence.together(*cells)
    clean = evidence.together(Where(evidence.plain), Where(defence))
    if defence is None or transfer is None:
        return None
    defended, plain = (result.accuracy for result in transfer)
    lowest = [Where(name, *under, rung) for name in (hardest, evidence.plain) for rung in JUDGED]
    return Row(
        evidence.network,
        under[0],
        method,
        defence,
        printed,
        plain,
        defended,
        difference(transfer),
        relative_improvement(defended.value, plain.value),
        difference(transfer, times=1 + printed),
        None if clean is None else difference(clean),
        hardest,
        _worst(evidence.together(*lowest)),
        worst((evidence.mark(*cells), evidence.mark(*lowest))),
    )


def _worst(results: list[Result] | None) -> Interval | None:
    """Gain of a defence, from its results on both rungs and those of the plain network."""
    if results is None:
        return None
    return gain_at_worst([results[:2]], [results[2:]])
