"""The recorded results of a network, by what they are evidence of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qnad_art.benchmark.audit import audit_results, unreliable
from qnad_art.benchmark.comparison import scored
from qnad_art.benchmark.records import Bools, Interval, Result, Rung
from qnad_art.paper.record import Header, Recorded
from qnad_art.paper.suites import SIZES

Fractions = dict[float, str]
"""Labels of defences by the fraction of weights that they put under crosstalk."""

AGAIN = "again"
"""Label of the same architecture, trained differently."""


@dataclass(frozen=True)
class Evidence:
    """Results of one plain network on one set of images.

    Args:
        network: its label: ``lenet5``, ``alexnet``, ``vgg16``.
        headers: of the records that they come from.
        results: all kinds.
    """

    network: str
    headers: tuple[Header, ...]
    results: tuple[Result, ...]

    @cached_property
    def _by_condition(self) -> dict[tuple[str, str | None, float | None, Rung | None], Result]:
        cells = [(r.cell, r) for r in self.results if r.cell.kind != "audit"]
        return {(c.defence, c.attack, c.eps, c.rung): result for c, result in cells}

    @cached_property
    def _steps(self) -> dict[str, list[dict[str, Any]]]:
        return {label: steps for header in self.headers for label, steps in header.defences.items()}

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

    def get(
        self,
        defence: str | None,
        attack: str | None = None,
        eps: float | None = None,
        rung: Rung | None = None,
    ) -> Result | None:
        """A result; clean images without an attack; ``None`` if it was not measured."""
        return None if defence is None else self._by_condition.get((defence, attack, eps, rung))

    def correct(
        self, defence: str | None, attack: str | None, eps: float | None, rung: Rung | None
    ) -> Bools | None:
        """(draws, images) of a result."""
        found = self.get(defence, attack, eps, rung)
        return None if found is None else scored(found)

    def accuracy(
        self,
        defence: str | None,
        attack: str | None = None,
        eps: float | None = None,
        rung: Rung | None = None,
    ) -> Interval | None:
        """With its 95 % interval."""
        found = self.get(defence, attack, eps, rung)
        return None if found is None else found.accuracy

    @cached_property
    def _failed(self) -> dict[str, list[str]]:
        return {where[3]: unreliable(g) for where, g in audit_results(self.results).items()}

    def failed(self, defence: str) -> list[str]:
        """Names of the gates that a defence failed."""
        return self._failed.get(defence, [])

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
    """Results of a network in several records on the same images: those of the largest."""
    mine = [record for record in records if network in record.header.models]
    mine.sort(key=lambda record: -record.header.cells)
    hashes = {r.provenance.data_hash for r in mine[0].results[:1]}
    results = [
        result
        for record in mine
        for result in record.results
        if result.cell.model == network and _same_images(result, hashes)
    ]
    return Evidence(network, tuple(record.header for record in mine), tuple(results))


def _same_images(result: Result, hashes: set[str]) -> bool:
    return result.provenance.data_hash in hashes


def stacked(parts: Sequence[Bools | None]) -> list[Bools] | None:
    """All of ``parts``, or ``None`` if one is missing or of other images."""
    present = [part for part in parts if part is not None]
    if len(present) < len(parts) or len({np.shape(part)[1] for part in present}) > 1:
        return None
    return present
