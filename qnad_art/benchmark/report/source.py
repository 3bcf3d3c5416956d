"""What a report is made from; it is read from the run once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qnad_art.benchmark.records import Cell, Result, content_address
from qnad_art.benchmark.report.figures import Families
from qnad_art.benchmark.report.gallery import Arrays
from qnad_art.benchmark.report.view import Gates, View, place
from qnad_art.errors import ArtifactError

if TYPE_CHECKING:
    from qnad_art.benchmark.run.folder import Run


@dataclass(frozen=True)
class Source:
    """A run's results and what its suite says about them.

    Args:
        title: name of the suite.
        suite: text of the suite.
        cells: all cells that the suite asks for.
        results: results of the cells that were measured.
        gates: gates of the audit.
        undefended: label of the defence that does nothing, if there is one.
        classical: labels of the defences that use no quantum device.
        failures: reason why a cell could not be measured.
        families: defences that differ only in their fraction of crosstalk.
        devices: by label, the names or files that :func:`qnad_art.device.load_device` takes.
        examples: returns the arrays kept of the cell with a key; see :func:`~.gallery.galleries`.
    """

    title: str
    suite: str
    cells: tuple[Cell, ...]
    results: tuple[Result, ...]
    gates: Gates
    undefended: str | None = None
    classical: frozenset[str] = frozenset()
    failures: Mapping[Cell, str] = field(default_factory=dict)
    families: Families = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    examples: Callable[[str], Arrays | None] = lambda key: None

    @cached_property
    def views(self) -> list[View]:
        """A view of each model, data set and device, in the order of the suite."""
        quantum = [cell for cell in self.cells if cell.defence not in self.classical]
        return [
            View(where, self.results, self.cells, self.gates, self.undefended, self.classical)
            for where in dict.fromkeys(place(cell) for cell in quantum or self.cells)
        ]


def read_source(run: Run) -> Source:
    """Read what a report is made from.

    Raises:
        ArtifactError: the run is damaged or has no results yet.
    """
    from qnad_art.benchmark.audit.audit import audit_results
    from qnad_art.benchmark.defences import steps_content

    suite, results = run.suite, results_of(run)
    return Source(
        title=suite.name,
        suite=suite.model_dump_json(indent=2),
        cells=tuple(run.cells.values()),
        results=tuple(results),
        gates=audit_results(results),
        undefended=next((label for label, steps in suite.defences.items() if not steps), None),
        classical=frozenset(
            label
            for label, steps in suite.defences.items()
            if not any(step.quantum for step in steps)
        ),
        failures={failure.cell: failure.reason for failure in run.failures()},
        families=families_of({d: steps_content(steps) for d, steps in suite.defences.items()}),
        devices=suite.devices,
        examples=run.examples,
    )


def results_of(run: Run) -> list[Result]:
    """The results of a run; raises :class:`~qnad_art.errors.ArtifactError` if it has none yet."""
    results = run.results()
    if not results:
        raise ArtifactError(
            f"{run.folder} has no results yet: let `qnad evaluate` measure some cells."
        )
    return results


def families_of(defences: Mapping[str, list[dict[str, Any]]]) -> Families:
    """Groups of defences that differ only in the field ``fraction`` of one step.

    Args:
        defences: by label, the names and settings of the steps of each defence.
    """
    groups: dict[str, list[tuple[float, str]]] = defaultdict(list)
    names: dict[str, str] = {}
    for label, steps in defences.items():
        fractions = [step["fraction"] for step in steps if step.get("fraction") is not None]
        if len(fractions) != 1:
            continue
        rest = [{k: v for k, v in step.items() if k != "fraction"} for step in steps]
        group = content_address(rest)
        groups[group].append((float(fractions[0]), label))
        names[group] = " + ".join(str(step["name"]) for step in steps)
    several = {group: sorted(members) for group, members in groups.items() if len(members) > 1}
    shared = Counter(names[group] for group in several)
    return [
        (names[g] if shared[names[g]] == 1 else f"{names[g]}, as {members[0][1]}", members)
        for g, members in several.items()
    ]
