"""The recorded results of a network, by what they are evidence of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from qnad_art.benchmark.records import Bools, Interval, Result, Rung
from qnad_art.benchmark.statistics.worst import at_worst
from qnad_art.errors import ArtifactError
from qnad_evaluations.paper.marks import audit_marks, worst
from qnad_evaluations.paper.record import Header, Recorded
from qnad_evaluations.paper.suites import SIZES

Fractions = dict[float, str]
"""Labels of defences by the fraction of weights that they put under crosstalk."""

JUDGED: tuple[Rung, Rung] = ("transfer", "adaptive")
"""The paper's setting, and an attacker who knows the defence."""

AGAIN = "again"
"""Label of the same architecture, trained differently."""


class Where(NamedTuple):
    """A defence under an attack at ε on a rung; on clean images without an attack."""

    defence: str | None
    attack: str | None = None
    eps: float | None = None
    rung: Rung | None = None


@dataclass(frozen=True)
class Evidence:
    """Results of one plain network on one set of images.

    Args:
        network: its label: ``lenet5``, ``alexnet``, ``vgg16``.
        records: that they come from, with these results alone; the largest first, which counts
            where several measured the same.
    """

    network: str
    records: tuple[Recorded, ...]

    @property
    def headers(self) -> tuple[Header, ...]:
        """Of the records."""
        return tuple(record.header for record in self.records)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """All kinds, of all records."""
        return tuple(result for record in self.records for result in record.results)

    @cached_property
    def _measured(self) -> list[dict[Where, Result]]:
        """Record by record."""
        return [_by_place(record.results) for record in self.records]

    @cached_property
    def _steps(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for header in self.headers:
            for label, steps in header.defences.items():
                found.setdefault(label, steps)
        return found

    def labels(self, *names: str) -> list[str]:
        """Defences that consist of just these steps, on the exact expectation."""
        return [
            label
            for label, steps in self._steps.items()
            if tuple(step["name"] for step in steps) == names
            and not any(isinstance(step.get("shots"), int) for step in steps)
        ]

    @property
    def plain(self) -> str | None:
        """The undefended network."""
        return next(iter(self.labels()), None)

    @property
    def inherent(self) -> str | None:
        """Inherent noise alone."""
        return next(iter(self.labels("inherent")), None)

    @property
    def tuned(self) -> str | None:
        """Tuned crosstalk, at the first of its :attr:`operating_points`."""
        return next(iter(self.operating_points), None)

    @property
    def operating_points(self) -> list[str]:
        """Tuned crosstalk: the hardened folders, else what was first tuned in the run."""
        return self.labels("hardened") or self.labels("qnad-tuned")[:1]

    def fractions(self, strategy: str) -> Fractions:
        """Defences of a crosstalk strategy by their fraction, 0 being inherent noise alone."""
        found = {self._steps[label][0]["fraction"]: label for label in self.labels(strategy)}
        if self.inherent is not None and found:
            found[0.0] = self.inherent
        return dict(sorted(found.items()))

    @cached_property
    def attacks(self) -> list[str]:
        """In the order of the records."""
        return list(dict.fromkeys(r.cell.attack for r in self.results if r.cell.attack))

    def budgets(self, attack: str, rung: Rung) -> list[float]:
        """Every ε of an attack on a rung, ascending."""
        found = {
            r.cell.eps
            for r in self.results
            if (r.cell.attack, r.cell.rung) == (attack, rung) and r.cell.eps is not None
        }
        return sorted(found)

    def together(self, *cells: Where) -> list[Result] | None:
        """Results to compare, from the first record that has them all; ``None`` if none has.

        Between two records more may have changed than what is compared: the code, the crosstalk
        plan, the noise draws.
        """
        home = self._home(cells)
        return None if home is None else [self._measured[home][cell] for cell in cells]

    def _home(self, cells: Sequence[Where]) -> int | None:
        """Number of the first record that has all of the cells."""
        found = (n for n, m in enumerate(self._measured) if all(cell in m for cell in cells))
        return next(found, None)

    def mark(self, *cells: Where) -> str:
        """What the audit of their record says of :meth:`together`: the worst of their marks."""
        home = self._home(cells)
        return "" if home is None else worst(self._marks[home][str(c.defence)] for c in cells)

    @cached_property
    def _marks(self) -> list[dict[str, str]]:
        """Record by record."""
        return [audit_marks(record.results) for record in self.records]

    def accuracy(
        self,
        defence: str | None,
        attack: str | None = None,
        eps: float | None = None,
        rung: Rung | None = None,
    ) -> Interval | None:
        """With its 95 % interval; clean images without an attack; ``None``: not measured."""
        found = self.together(Where(defence, attack, eps, rung))
        return None if found is None else found[0].accuracy

    def accuracies(
        self, defences: Iterable[str], attack: str, eps: float, rung: Rung
    ) -> dict[str, Interval]:
        """Of several defences, to compare: from the record that has the most of them."""
        cells = [Where(defence, attack, eps, rung) for defence in defences]
        found = [{c.defence: m[c].accuracy for c in cells if c in m} for m in self._measured]
        return {str(defence): accuracy for defence, accuracy in max(found, key=len).items()}

    def at_worst(
        self, defences: Iterable[str], attack: str, eps: float, rungs: Sequence[Rung]
    ) -> dict[str, Bools]:
        """Outcomes under all rungs together, of defences as for :meth:`accuracies`."""
        cells = {d: [Where(d, attack, eps, rung) for rung in rungs] for d in defences}
        found = [
            {d: at_worst([m[c] for c in mine]) for d, mine in cells.items() if m.keys() >= {*mine}}
            for m in self._measured
        ]
        return max(found, key=len)

    @property
    def images(self) -> int:
        """Test images."""
        return max((r.images for r in self.results if r.cell.kind != "audit"), default=0)


def networks(records: Sequence[Recorded]) -> list[Evidence]:
    """The evidence of the paper's records by network, of each the largest size that there is."""
    found: dict[str, Evidence] = {}
    for size in reversed(SIZES):
        chosen = [r for r in records if (r.header.collection, r.header.size) == ("paper", size)]
        alone = [record for record in chosen if len(record.header.models) == 1]
        for network in dict.fromkeys(name for r in alone for name in r.header.models):
            if network not in found:
                found[network] = _merged(network, alone)
    return list(found.values())


def trained_again(records: Sequence[Recorded]) -> list[tuple[Evidence, Evidence]]:
    """Two networks of one architecture, measured side by side, of each the largest size."""
    found: dict[str, tuple[Evidence, Evidence]] = {}
    for size in reversed(SIZES):
        for record in records:
            header = record.header
            others = [name for name in header.models if name != AGAIN]
            if (header.collection, header.size) != ("paper", size) or AGAIN not in header.models:
                continue
            if len(others) == 1 and others[0] not in found:
                pair = (_merged(others[0], [record]), _merged(AGAIN, [record]))
                found[others[0]] = pair
    return list(found.values())


def _merged(network: str, records: Sequence[Recorded]) -> Evidence:
    """A network's results in several records, on the images of the largest.

    Raises:
        ArtifactError: the label stands for different networks.
    """
    mine = [record for record in records if network in record.header.models]
    mine.sort(key=lambda record: -record.header.cells)
    images = {r.provenance.data_hash for r in mine[0].results[:1]}
    kept = [
        Recorded(
            record.header,
            tuple(
                result
                for result in record.results
                if result.cell.model == network and result.provenance.data_hash in images
            ),
        )
        for record in mine
    ]
    _check_weights(network, kept)
    return Evidence(network, tuple(kept))


def _check_weights(network: str, records: Sequence[Recorded]) -> None:
    places: dict[str, str] = {}
    for record in records:
        for result in record.results:
            places.setdefault(result.provenance.weights_hash, str(record.header.place))
    if len(places) > 1:
        raise ArtifactError(
            f"The records {', '.join(places.values())} have networks with different weights under "
            f"the label {network!r}: make them again with one network, or remove the others."
        )


def _by_place(results: Iterable[Result]) -> dict[Where, Result]:
    cells = [(result.cell, result) for result in results if result.cell.kind != "audit"]
    return {Where(c.defence, c.attack, c.eps, c.rung): result for c, result in cells}
