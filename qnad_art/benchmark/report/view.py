"""A run's results arranged for reading: by model, data and device, over all seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from qnad_art.benchmark.records import RUNGS, Cell, Gate, Interval, Result, Rung
from qnad_art.benchmark.statistics.worst import ONE_TRY, accuracy_at_worst

Gates = Mapping[tuple[str, str, str, str, int], Sequence[Gate]]

NO_BUDGET = "no budget"


@dataclass(frozen=True, order=True)
class Budget:
    """How much an attack may change an image; budgets in different norms are not comparable."""

    norm: str
    eps: float

    def __str__(self) -> str:
        return f"{norm_name(self.norm)} ε {self.eps:.4g}"


@dataclass(frozen=True)
class Condition:
    """What a defence is measured under: an attack at a budget on a rung."""

    attack: str
    rung: Rung
    budget: Budget | None

    def __str__(self) -> str:
        return f"{self.attack} · {self.rung} · {self.size}"

    @property
    def size(self) -> str:
        """The budget as text."""
        return NO_BUDGET if self.budget is None else str(self.budget)


def pooled(figures: Sequence[Interval]) -> Interval | None:
    """Combine a figure that was measured under several seeds; ``None`` if there are none.

    The value is the mean. The interval reaches from the lowest to the highest end of the single
    intervals: it shows how the seeds differ, and is not a confidence interval of the mean.
    """
    if not figures:
        return None
    return Interval(
        value=fmean(figure.value for figure in figures),
        low=min(figure.low for figure in figures),
        high=max(figure.high for figure in figures),
    )


class View:
    """The results of one model on one data set and one device.

    Args:
        where: model, data and device.
        results: results of the whole run.
        cells: all cells that the suite asks for, measured or not.
        gates: gates of the audit.
        undefended: label of the defence that does nothing, if the suite has one.
        classical: labels of the defences that use no device; their results count for all devices.
    """

    def __init__(
        self,
        where: tuple[str, str, str],
        results: Iterable[Result],
        cells: Sequence[Cell],
        gates: Gates,
        undefended: str | None,
        classical: Container[str] = (),
    ) -> None:
        self.model, self.data, self.device = where

        def here(model: str, data: str, device: str, defence: str) -> bool:
            same = where if defence not in classical else (*where[:2], device)
            return (model, data, device) == same

        self.cells = [cell for cell in cells if here(*place(cell), cell.defence)]
        self.results = [r for r in results if here(*place(r.cell), r.cell.defence)]
        self.gates = {key[3:]: found for key, found in gates.items() if here(*key[:4])}
        self.undefended = undefended
        self._by_cell: dict[tuple[str, Condition | None], list[Result]] = defaultdict(list)
        for result in self.results:
            if result.cell.kind != "audit":
                self._by_cell[result.cell.defence, condition_of(result)].append(result)

    @property
    def title(self) -> str:
        """Model, data and device."""
        return f"{self.model} on {self.data}, {self.device}"

    @cached_property
    def defences(self) -> list[str]:
        """Labels of the defences in the order of the suite."""
        return list(dict.fromkeys(cell.defence for cell in self.cells))

    @cached_property
    def conditions(self) -> list[Condition]:
        """All measured conditions, ordered by rung, attack and budget."""
        attacks = list(dict.fromkeys(cell.attack for cell in self.cells))
        found = {condition for _, condition in self._by_cell if condition is not None}
        unbounded = Budget("~", 0.0)  # sorts after all norms
        return sorted(
            found,
            key=lambda c: (RUNGS.index(c.rung), attacks.index(c.attack), c.budget or unbounded),
        )

    @cached_property
    def budgets(self) -> list[Budget]:
        """All measured budgets, ascending."""
        return sorted({c.budget for c in self.conditions if c.budget is not None})

    def failed(self, defence: str) -> list[str]:
        """Names of the gates that the defence failed under any seed."""
        from qnad_art.benchmark.audit.audit import unreliable

        gates = [
            gate for (name, _), found in self.gates.items() if name == defence for gate in found
        ]
        return list(dict.fromkeys(unreliable(gates)))

    @property
    def unreliable(self) -> list[str]:
        """Labels of the defences that failed a gate."""
        return [defence for defence in self.defences if self.failed(defence)]

    def label(self, defence: str) -> str:
        """The defence's name, marked if the defence is unreliable."""
        return f"{defence} (unreliable)" if self.failed(defence) else defence

    def look(self, defence: str) -> int:
        """Number of the looks (colour, marker, dash) of the defence."""
        return self.defences.index(defence)

    def of(self, defence: str, condition: Condition | None) -> list[Result]:
        """Results of a defence under a condition (``None``: clean images), one per seed."""
        return self._by_cell.get((defence, condition), [])

    def accuracy(self, defence: str, condition: Condition | None = None) -> Interval | None:
        """Accuracy over all seeds; ``None`` if it was not measured."""
        return pooled([result.accuracy for result in self.of(defence, condition)])

    def strongest(self, defence: str, budget: Budget | None) -> tuple[Condition, Interval] | None:
        """The condition at a budget with the lowest accuracy, and that accuracy."""
        here = [condition for condition in self.conditions if condition.budget == budget]
        measured = [(c, left) for c in here if (left := self.accuracy(defence, c)) is not None]
        return min(measured, key=lambda item: item[1].value, default=None)

    def one_try(self, budget: Budget | None) -> list[Condition]:
        """Conditions at a budget on the rungs that :mod:`~.statistics.worst` counts."""
        return [c for c in self.conditions if c.budget == budget and c.rung in ONE_TRY]

    def at_worst(self, defence: str, budget: Budget | None) -> Interval | None:
        """Accuracy under all attacks measured at a budget together; ``None`` if there are none."""
        found = self.by_seed(defence, [c for c in self.one_try(budget) if self.of(defence, c)])
        return accuracy_at_worst(found) if found else None

    def by_seed(self, defence: str, conditions: Sequence[Condition | None]) -> list[list[Result]]:
        """Results of a defence for each seed that was measured under all of the conditions."""
        found: dict[int, list[Result]] = defaultdict(list)
        for condition in conditions:
            for result in self.of(defence, condition):
                found[result.cell.seed].append(result)
        return [results for results in found.values() if len(results) == len(conditions)]


def place(cell: Cell) -> tuple[str, str, str]:
    """Model, data and device."""
    return cell.model, cell.data, cell.device


def condition_of(result: Result) -> Condition | None:
    """The condition that a result was measured under; ``None`` for clean images."""
    attack, rung, eps = result.cell.attack, result.cell.rung, result.cell.eps
    if attack is None or rung is None:
        return None
    return Condition(attack, rung, None if eps is None else Budget(result.norm or "?", eps))


def norm_name(norm: str) -> str:
    """A norm as text, such as L∞ for ``inf``."""
    return f"L{norm.replace('inf', '∞')}"
