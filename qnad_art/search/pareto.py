"""Results of a search: its trials, its Pareto front, and a figure of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from qnad_art.accuracy import Proportion

if TYPE_CHECKING:
    from qnad_art.search.settings import SearchSettings


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Args:
        number: counted from 1 in the order in which trials finished.
        settings: the tried settings of ``Tuned`` and of :func:`qnad_art.convert`.
        clean, robust: correctly classified images among the validation images.
        achieved: fraction of the weights under crosstalk.
        seconds: duration of the trial.
    """

    number: int
    settings: Mapping[str, Any]
    clean: Proportion
    robust: Proportion
    achieved: float
    seconds: float = field(compare=False)

    def dominates(self, other: Trial) -> bool:
        """Whether this trial is at least as good in both accuracies and better in one."""
        here, there = ((t.clean.accuracy, t.robust.accuracy) for t in (self, other))
        return here[0] >= there[0] and here[1] >= there[1] and here != there

    def as_dict(self) -> dict[str, Any]:
        """The trial as plain JSON."""
        accuracies = {"clean": self.clean.as_dict(), "robust": self.robust.as_dict()}
        return {**asdict(self), "settings": dict(self.settings), **accuracies}


@dataclass(frozen=True)
class SearchResult:
    """All finished trials of a study."""

    settings: SearchSettings
    trials: tuple[Trial, ...]

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other dominates, from most robust to highest clean accuracy."""
        best = [t for t in self.trials if not any(o.dominates(t) for o in self.trials)]
        return tuple(sorted(best, key=lambda t: (t.clean.accuracy, t.number)))


def pareto_figure(result: SearchResult) -> bytes:
    """Plot robust against clean accuracy of all trials with 95 % Wilson intervals, as PNG.

    The Pareto front is numbered and connected by a line; all other trials are grey.
    """
    import io

    from matplotlib.figure import Figure

    front = result.front
    others = [trial for trial in result.trials if trial not in front]
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    _draw(axes, others, label="other trials", color="#aaaaaa", marker="o", linestyle="none")
    _draw(axes, front, label="Pareto front", color="#d55e00", marker="D", linestyle="-")
    for trial in front:
        axes.annotate(
            str(trial.number),
            (100 * trial.clean.accuracy, 100 * trial.robust.accuracy),
            xytext=(7, 7),
            textcoords="offset points",
            color="#d55e00",
        )
    settings, images = result.settings, result.trials[0].clean.images
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel(
        f"accuracy under PGD-{settings.attack_steps}, ε = {settings.epsilon:.3g}, white-box (%)"
    )
    axes.set_title(
        f"Tuned crosstalk on {settings.device}: {len(result.trials)} trials, "
        f"{images:,} validation images",
        fontsize="medium",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw(axes: Any, trials: Sequence[Trial], **style: Any) -> None:
    """Draw points with half-transparent intervals in both directions."""
    if not trials:
        return
    x, xerr = _percent([trial.clean for trial in trials])
    y, yerr = _percent([trial.robust for trial in trials])
    drawn = axes.errorbar(x, y, xerr=xerr, yerr=yerr, markersize=5, elinewidth=0.8, **style)
    for bar in drawn[2]:
        bar.set_alpha(0.35)


def _percent(column: Sequence[Proportion]) -> tuple[list[float], list[list[float]]]:
    """Accuracies in %, and the lengths of their intervals below and above."""
    low = [100 * (p.accuracy - p.interval[0]) for p in column]
    high = [100 * (p.interval[1] - p.accuracy) for p in column]
    return [100 * p.accuracy for p in column], [low, high]
