"""Charts as matplotlib figures, for PNG and SVG files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import Chart, Panel, categories, errors, in_percent, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "X", "v", "*", "p", "h")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)))
HATCHES = ("", "//", "xx", "--", "..", "\\\\", "||")

Extension = Literal["png", "svg"]

WIDTH = 14.0
"""Width in inches that a figure takes if its panels allow it."""
FEW = 8
"""Number of names that fit under a narrow figure."""


def picture(chart: Chart, extension: Extension) -> bytes:
    """The chart as an image file on white, at 150 dots per inch."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # With a fixed salt and without a date, equal figures are equal files.
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
    longest = max(map(len, names), default=0)
    abreast = max(1, min(4, len(names), int(across * 11 / (longest + 6))))
    below = 0.5 + 0.2 * math.ceil(len(names) / abreast)
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
        _legend(figure, names, abreast)
    return figure


def _panel_size(chart: Chart) -> tuple[float, float]:
    """Width and height of a panel in inches."""
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


def _legend(figure: Figure, names: Sequence[str], abreast: int) -> None:
    """Every name once, in the order of the looks, under the panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    figure.legend(
        [entries[name] for name in names],
        names,
        loc="outside lower center",
        ncols=abreast,
        frameon=False,
        fontsize=9,
    )


def _lines(axes: Axes, panel: Panel) -> None:
    for series in panel.series:
        axes.plot(
            [float(point.x) for point in series.points if not isinstance(point.x, Interval)],
            series.heights,
            label=_plain(series.name),
            color=series.colour,
            marker=series.pick(MARKERS),
            linestyle=series.pick(DASHES),
            markersize=5,
        )
        if len(series.band) > 1:
            points, low, high = zip(*series.band, strict=True)
            at, faint = [point.x for point in points], 0.6 / max(len(panel.series), 3)
            axes.fill_between(at, low, high, color=series.colour, alpha=faint, lw=0)


def _bars(axes: Axes, panel: Panel) -> None:
    names = categories(panel)
    width = 0.8 / len(panel.series)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * width
        axes.bar(
            [names.index(str(point.x)) + offset for point in series.points],
            series.heights,
            width,
            yerr=errors([point.y for point in series.points]),
            label=_plain(series.name),
            facecolor="white" if series.pick(HATCHES) else series.colour,
            edgecolor=series.colour,
            hatch=series.pick(HATCHES),
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
        axes.errorbar(
            [in_percent(x) for x in series.across],
            series.heights,
            xerr=errors(series.across),
            yerr=errors([point.y for point in series.points]),
            fmt=series.pick(MARKERS),
            label=_plain(series.name),
            color=series.colour,
            markersize=8,
            elinewidth=1,
            capsize=2,
        )


def _heat(axes: Axes, panel: Panel) -> None:
    names = categories(panel)
    shown = np.full((len(panel.series), len(names)), np.nan)
    for row, series in enumerate(panel.series):
        for point in series.points:
            shown[row, names.index(str(point.x))] = in_percent(point.y)
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


def _plain(text: str) -> str:
    """Escape text: otherwise ``$`` starts a formula, and a leading ``_`` hides a label."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
