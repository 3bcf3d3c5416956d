"""Charts as matplotlib figures, for PNG and SVG files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import COLOURS, Chart, Panel, Series, categories, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "X", "v", "*", "p", "h")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)))
HATCHES = ("", "//", "xx", "--", "..", "\\\\", "||")

Extension = Literal["png", "svg"]

WIDTH = 14.0
"""Inches that a figure takes if its panels let it."""
FEW = 8
"""Names that fit under a narrow figure."""


def picture(chart: Chart, extension: Extension) -> bytes:
    """The chart as an image file, on white, 150 dots an inch."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without a salt and a date, equal figures are equal files.
    with rc_context({"svg.hashsalt": chart.key, "svg.fonttype": "none"}):
        matplotlib_figure(chart).savefig(
            buffer, format=extension, dpi=150, metadata={"Date": None} if extension == "svg" else {}
        )
    return buffer.getvalue()


def matplotlib_figure(chart: Chart) -> Figure:
    """All panels of a chart in one figure, its legend below them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _panel_size(chart)
    rows = math.ceil(len(chart.panels) / max(1, min(3, int(WIDTH / width))))
    columns = math.ceil(len(chart.panels) / rows)  # four are two and two
    names = [_plain(name) for name, _ in chart.names] if chart.kind != "heat" else []
    across = max(columns * width, 6.0 if len(names) <= FEW else 9.0)
    beside = _beside(names, across)
    below = 0.5 + 0.2 * math.ceil(len(names) / beside)
    figure = Figure(figsize=(across, rows * height + below), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, chart.panels, strict=False):
        draw = {"lines": _lines, "bars": _bars, "scatter": _scatter, "heat": _heat}[chart.kind]
        draw(axes, panel)
        axes.set_title(_plain(panel.title), fontsize=10)
        if chart.kind != "heat":
            _dress(axes, chart)
    for axes in grid[len(chart.panels) :]:
        axes.set_visible(False)
    figure.suptitle(_plain(chart.title), fontsize=12)
    if chart.kind != "heat":
        _legend(figure, names, beside)
    return figure


def _beside(names: Sequence[str], width: float) -> int:
    """Names in a line of the legend of a figure so many inches wide."""
    longest = max(map(len, names), default=0)
    return max(1, min(4, len(names), int(width * 11 / (longest + 6))))


def _panel_size(chart: Chart) -> tuple[float, float]:
    """Width and height in inches."""
    most = max(len(panel.series) for panel in chart.panels)
    names = max(len(categories(panel)) for panel in chart.panels)
    if chart.kind == "heat":
        longest = max(len(name) for name, _ in chart.names)
        return 0.6 + 0.075 * longest + 0.85 * names, 1.0 + 0.32 * most
    if chart.kind == "bars":
        return max(4.0, 0.8 + names * (0.17 * most + 0.3)), 3.2
    return 4.0, 3.2


def _dress(axes: Axes, chart: Chart) -> None:
    axes.set_ylim(-2, 102)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.log:
        axes.set_xscale("log")
        ticks = sorted({x for line in axes.get_lines() for x in np.asarray(line.get_xdata())})
        axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)


def _legend(figure: Figure, names: Sequence[str], beside: int) -> None:
    """Every name once, in the order of the looks, under the panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    figure.legend(
        [entries[name] for name in names],
        names,
        loc="outside lower center",
        ncols=beside,
        frameon=False,
        fontsize=9,
    )


def _lines(axes: Axes, panel: Panel) -> None:
    for series in panel.series:
        x = [float(point.x) for point in series.points if not isinstance(point.x, Interval)]
        y = [_percent(point.y) for point in series.points]
        axes.plot(
            x,
            y,
            label=_plain(series.name),
            color=_colour(series),
            marker=_of(MARKERS, series),
            linestyle=_of(DASHES, series),
            markersize=5,
        )
        banded = [(x, p.y) for x, p in zip(x, series.points, strict=True)]
        ends = [(x, 100 * y.low, 100 * y.high) for x, y in banded if isinstance(y, Interval)]
        if len(ends) > 1:
            at, low, high = zip(*ends, strict=True)
            faint = 0.6 / max(len(panel.series), 3)
            axes.fill_between(at, low, high, color=_colour(series), alpha=faint, lw=0)


def _bars(axes: Axes, panel: Panel) -> None:
    names = categories(panel)
    width = 0.8 / len(panel.series)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * width
        axes.bar(
            [names.index(str(point.x)) + offset for point in series.points],
            [_percent(point.y) for point in series.points],
            width,
            yerr=_errors([point.y for point in series.points]),
            label=_plain(series.name),
            facecolor="white" if _of(HATCHES, series) else _colour(series),
            edgecolor=_colour(series),
            hatch=_of(HATCHES, series),
            error_kw={"elinewidth": 1, "capsize": 2},
        )
    axes.set_xticks(range(len(names)), [_plain(name) for name in names])


def _scatter(axes: Axes, panel: Panel) -> None:
    if len(panel.front) > 1:
        axes.plot(
            [100 * x for x, _ in panel.front],
            [100 * y for _, y in panel.front],
            ":",
            color="#555555",
            zorder=1,
        )
    for series in panel.series:
        across = [point.x for point in series.points if isinstance(point.x, Interval)]
        axes.errorbar(
            [100 * x.value for x in across],
            [_percent(point.y) for point in series.points],
            xerr=_errors(across),
            yerr=_errors([point.y for point in series.points]),
            fmt=_of(MARKERS, series),
            label=_plain(series.name),
            color=_colour(series),
            markersize=8,
            elinewidth=1,
            capsize=2,
        )


def _heat(axes: Axes, panel: Panel) -> None:
    names = categories(panel)
    shown = np.full((len(panel.series), len(names)), np.nan)
    for row, series in enumerate(panel.series):
        for point in series.points:
            shown[row, names.index(str(point.x))] = _percent(point.y)
    axes.imshow(shown, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), accuracy in np.ndenumerate(shown):
        missing = np.isnan(accuracy)
        text, colour = ("missing", "black") if missing else (f"{accuracy:.1f}", ink(accuracy))
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    labels = [_plain(name).replace(" · ", "\n") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=8)
    axes.set_yticks(
        range(len(panel.series)), [_plain(series.name) for series in panel.series], fontsize=8
    )
    axes.tick_params(length=0)


def _percent(figure: float | Interval) -> float:
    return 100 * (figure.value if isinstance(figure, Interval) else figure)


def _errors(figures: list[float | Interval] | list[Interval]) -> list[list[float]]:
    """Matplotlib's error bars: distances below and above."""
    known = [f if isinstance(f, Interval) else Interval(value=f, low=f, high=f) for f in figures]
    return [[100 * (f.value - f.low) for f in known], [100 * (f.high - f.value) for f in known]]


def _plain(text: str) -> str:
    """Text as matplotlib shows it unchanged: ``$`` starts no formula, ``_`` hides no label."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def _colour(series: Series) -> str:
    return COLOURS[series.look % len(COLOURS)]


def _of(looks: tuple[Any, ...], series: Series) -> Any:
    return looks[series.look % len(looks)]
