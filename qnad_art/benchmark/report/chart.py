"""What a figure shows, prepared once; two renderers draw it, and its table is read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qnad_art.benchmark.records import Interval

Kind = Literal["lines", "bars", "scatter", "heat"]

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

The renderers have 9 markers, 7 patterns and 5 dashes besides, so that few looks coincide.
"""

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Point:
    """One measured accuracy ``y`` (a share, with its interval where there is one) at ``x``.

    ``x`` is a number (ε, draws), a category in bars and heat maps, or an interval in a scatter
    plot. ``note`` is said in the table.
    """

    x: float | str | Interval
    y: float | Interval
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one name; ``look`` is its number among the looks (colour, marker, dash)."""

    name: str
    look: int
    points: tuple[Point, ...]


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
        key: name of its files, and its place in the page.
        title, caption: of the whole.
        x_label, y_label: of every panel.
        log: whether x is logarithmic.
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
        """Name and look of every series, each once, in order of their looks."""
        found = {(series.name, series.look) for panel in self.panels for series in panel.series}
        return tuple(sorted(found, key=lambda item: (item[1], item[0])))

    @property
    def alternative(self) -> str:
        """What a reader who does not see it is told; the figures are in the table."""
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
    """The x of all points of bars or a heat map, each once, in order."""
    return list(dict.fromkeys(str(point.x) for series in panel.series for point in series.points))


def ink(accuracy: float) -> str:
    """Black or white, whichever reads better on Cividis at ``accuracy`` percent; above 4.5:1."""
    return "#000000" if accuracy > 46 else "#ffffff"


def percent(figure: float | Interval | None) -> str:
    """A share as text, ``87.2``, with its interval ``87.2 [86.1, 88.3]``."""
    if figure is None:
        return "missing"
    if isinstance(figure, float):
        return f"{100 * figure:.1f}"
    return f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def points(gain: Interval | None) -> str:
    """A difference in percentage points, ``+3.1 [+1.0, +5.2]``."""
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
                row = rows.setdefault((panel.title, _text(point.x)), {})
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
    rows = [
        (panel.title, series.name, percent(point.x), percent(point.y), point.note)
        for panel in chart.panels
        for series in panel.series
        for point in series.points
        if isinstance(point.x, Interval)
    ]
    return Table(
        caption=chart.title,
        columns=("panel", "defence", chart.x_label, chart.y_label, "remark"),
        rows=tuple(rows),
        headers=2,
    )


def _text(x: float | str | Interval) -> str:
    return f"{x:.4g}" if isinstance(x, float | int) else str(x)
