"""What a figure shows: prepared once, drawn by two renderers, and also written as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from qnad_art.benchmark.records import Interval

Kind = Literal["lines", "bars", "scatter", "heat"]
Look = TypeVar("Look")

COLOURS = (
    "#7d7d7d",
    "#1f78b4",
    "#d55e00",
    "#00936b",
    "#8a63d2",
    "#a6761d",
    "#c2609a",
    "#0e8fa0",
)
"""Each at least 3:1 against the light and against the dark page (WCAG 1.4.11).

The renderers also have 9 markers, 7 patterns and 5 dashes, so that few looks coincide.
"""

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Point:
    """One measured accuracy ``y`` (a share, with its interval if it has one) at ``x``.

    ``x`` is a number (ε, draws), a category in bars and heat maps, or an interval in a scatter
    plot. The table shows ``note``.
    """

    x: float | str | Interval
    y: float | Interval
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name; ``look`` is the number of its looks (colour, marker, dash)."""

    name: str
    look: int
    points: tuple[Point, ...]

    def pick(self, looks: Sequence[Look]) -> Look:
        """The one of the colours, markers, dashes or patterns that belongs to this series."""
        return looks[self.look % len(looks)]

    @property
    def colour(self) -> str:
        """The colour as ``#rrggbb``."""
        return self.pick(COLOURS)

    @property
    def heights(self) -> list[float]:
        """``y`` of all points in percent."""
        return [in_percent(point.y) for point in self.points]

    @property
    def across(self) -> list[Interval]:
        """``x`` of all points of a scatter plot."""
        return [point.x for point in self.points if isinstance(point.x, Interval)]

    @property
    def band(self) -> list[tuple[Point, float, float]]:
        """Each point that has an interval, and the ends of that interval in percent."""
        return [
            (point, 100 * point.y.low, 100 * point.y.high)
            for point in self.points
            if isinstance(point.y, Interval)
        ]


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``front`` is a line to draw through a scatter plot."""

    title: str
    series: tuple[Series, ...]
    front: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """A figure.

    Args:
        key: name of its files, and its anchor in the page.
        title, caption: title and caption of the whole figure.
        x_label, y_label: labels of the axes of every panel.
        log: whether the x axis is logarithmic.
    """

    key: str
    kind: Kind
    title: str
    caption: str
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    log: bool = False

    @property
    def names(self) -> tuple[tuple[str, int], ...]:
        """Name and look of every series, each once, ordered by look."""
        found = {(series.name, series.look) for panel in self.panels for series in panel.series}
        return tuple(sorted(found, key=lambda item: (item[1], item[0])))

    @property
    def alternative(self) -> str:
        """Alternative text for readers who cannot see the figure; the table has its numbers."""
        drawn = {"lines": "Line plot", "bars": "Bar chart", "scatter": "Scatter plot"}
        kind = drawn.get(self.kind, "Heat map")
        names = ", ".join(name for name, _ in self.names)
        return f"{kind}: {self.title}. {self.y_label} against {self.x_label}, for {names}."


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first ``headers`` cells of a row name it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    headers: int = 1


def categories(panel: Panel) -> list[str]:
    """The categories of bars or of a heat map, each once, in order of appearance."""
    return list(dict.fromkeys(str(point.x) for series in panel.series for point in series.points))


def ink(accuracy: float) -> str:
    """Black or white: the one with a contrast above 4.5:1 on Cividis at ``accuracy`` percent."""
    return "#000000" if accuracy > 46 else "#ffffff"


def in_percent(figure: float | Interval) -> float:
    """The value of a share in percent."""
    return 100 * (figure.value if isinstance(figure, Interval) else figure)


def errors(figures: Sequence[float | Interval]) -> tuple[list[float], list[float]]:
    """Lengths of error bars below and above, in percent; 0 for figures without an interval."""
    known = [f if isinstance(f, Interval) else Interval(value=f, low=f, high=f) for f in figures]
    return [100 * (f.value - f.low) for f in known], [100 * (f.high - f.value) for f in known]


def percent(figure: float | Interval | None) -> str:
    """A share as text: ``87.2``, or with its interval ``87.2 [86.1, 88.3]``."""
    if figure is None:
        return "missing"
    if isinstance(figure, float):
        return f"{100 * figure:.1f}"
    return f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def points(gain: Interval | None) -> str:
    """A difference in percentage points as text: ``+3.1 [+1.0, +5.2]``."""
    if gain is None:
        return "missing"
    text = f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return text.replace("-", MINUS)


def table_of(chart: Chart) -> Table:
    """The figures that a chart shows."""
    if chart.kind == "scatter":
        return _scatter_table(chart)
    names = [name for name, _ in chart.names]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for panel in chart.panels:
        for series in panel.series:
            for point in series.points:
                x = f"{point.x:.4g}" if isinstance(point.x, float | int) else str(point.x)
                row = rows.setdefault((panel.title, x), {})
                row[series.name] = percent(point.y)
    return Table(
        caption=f"{chart.title}: {chart.y_label}",
        columns=("panel", chart.x_label, *names),
        rows=tuple(
            (*head, *(row.get(name, "missing") for name in names)) for head, row in rows.items()
        ),
        headers=2,
    )


def _scatter_table(chart: Chart) -> Table:
    return Table(
        caption=chart.title,
        columns=("panel", "defence", chart.x_label, chart.y_label, "remark"),
        rows=tuple(
            (panel.title, series.name, percent(x), percent(point.y), point.note)
            for panel in chart.panels
            for series in panel.series
            for point, x in zip(series.points, series.across, strict=True)
        ),
        headers=2,
    )
