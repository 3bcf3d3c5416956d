"""Charts as Plotly figures in plain JSON; the page colours them, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import (
    Chart,
    Panel,
    Point,
    Series,
    categories,
    errors,
    in_percent,
    ink,
    percent,
)

MARKERS = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "x",
    "triangle-down",
    "star",
    "pentagon",
    "hexagon",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", "x", "-", ".", "\\", "|")

Json = dict[str, Any]


def plotly_figures(chart: Chart) -> list[Json]:
    """One Plotly figure for each panel: ``data``, ``layout``, and the size it needs in pixels."""
    draw = {"lines": _lines, "bars": _bars, "scatter": _scatter, "heat": _heat}[chart.kind]
    return [draw(chart, panel) for panel in chart.panels]


def _figure(data: list[Json], chart: Chart, *, width: int = 0, height: int = 320) -> Json:
    layout: Json = {
        "height": height,
        "margin": {"l": 52, "r": 12, "t": 10, "b": 48},
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"align": "left"},
        "xaxis": {
            "title": {"text": chart.x_label, "standoff": 8},
            "fixedrange": True,
            "automargin": True,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": chart.y_label, "standoff": 6},
            "fixedrange": True,
            "range": [-2, 102],
            "zeroline": False,
        },
    }
    return {"data": data, "layout": layout, "width": width}


def _lines(chart: Chart, panel: Panel) -> Json:
    traces = [trace for series in panel.series for trace in _band(series, len(panel.series))]
    traces += [
        {
            **_base(series),
            "type": "scatter",
            "mode": "lines+markers",
            "x": [point.x for point in series.points],
            "y": series.heights,
            "line": {"color": series.colour, "width": 2, "dash": series.pick(DASHES)},
            "marker": {"symbol": series.pick(MARKERS), "size": 8},
        }
        for series in panel.series
    ]
    figure = _figure(traces, chart)
    if chart.log:
        xs = (point.x for series in panel.series for point in series.points)
        ticks = sorted({x for x in xs if isinstance(x, float)})
        text = [f"{tick:.4g}" for tick in ticks]
        figure["layout"]["xaxis"].update(type="log", tickvals=ticks, ticktext=text)
    return figure


def _band(series: Series, among: int) -> list[Json]:
    """The area between the ends of the intervals, fainter if many areas overlap."""
    if len(series.band) < 2:
        return []
    x = [point.x for point, _, _ in series.band]
    low, high = [low for _, low, _ in series.band], [high for _, _, high in series.band]
    red, green, blue = bytes.fromhex(series.colour[1:])
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(series.name),
            "meta": series.name,
            "x": x + x[::-1],
            "y": high + low[::-1],
            "fill": "toself",
            "fillcolor": f"rgba({red}, {green}, {blue}, {0.6 / max(among, 3):.2f})",
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
    ]


def _bars(chart: Chart, panel: Panel) -> Json:
    names = categories(panel)
    traces = [
        {
            **_base(series),
            "type": "bar",
            "x": [escape(str(point.x)) for point in series.points],
            "y": series.heights,
            "error_y": _error_bars([point.y for point in series.points]),
            "marker": {
                "color": series.colour,
                "pattern": {"shape": series.pick(PATTERNS), "fillmode": "replace", "size": 6},
                "line": {"color": series.colour, "width": 1},
            },
        }
        for series in panel.series
    ]
    width = 60 + len(names) * (12 * len(panel.series) + 20)
    figure = _figure(traces, chart, width=width)
    figure["layout"]["xaxis"].update(
        type="category", categoryorder="array", categoryarray=[escape(name) for name in names]
    )
    figure["layout"].update(barmode="group", bargap=0.3)
    return figure


def _scatter(chart: Chart, panel: Panel) -> Json:
    traces: list[Json] = []
    if len(panel.front) > 1:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [100 * x for x, _ in panel.front],
                "y": [100 * y for _, y in panel.front],
                "line": {"dash": "dot", "width": 1.5},
                "meta": "front",
                "hoverinfo": "skip",
            }
        )
    traces += [
        {
            **_base(series),
            "type": "scatter",
            "mode": "markers",
            "x": [in_percent(x) for x in series.across],
            "y": series.heights,
            "error_x": _error_bars(series.across),
            "error_y": _error_bars([point.y for point in series.points]),
            "marker": {"symbol": series.pick(MARKERS), "size": 11, "color": series.colour},
        }
        for series in panel.series
    ]
    figure = _figure(traces, chart)
    figure["layout"]["xaxis"]["nticks"] = 6
    return figure


def _heat(chart: Chart, panel: Panel) -> Json:
    names = categories(panel)
    found = [{str(p.x): p for p in series.points} for series in panel.series]
    cells = [[row.get(name) for name in names] for row in found]
    rows = [escape(series.name) for series in panel.series]
    columns = [escape(name).replace(" · ", "<br>") for name in names]
    trace: Json = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": [[None if p is None else in_percent(p.y) for p in row] for row in cells],
        "zmin": 0,
        "zmax": 100,
        "colorscale": "Cividis",
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "customdata": [[_hover(p) for p in row] for row in cells],
        "hovertemplate": "%{y}<br>%{x}<br>%{customdata}<extra></extra>",
        "hoverongaps": False,
    }
    width = 40 + 7 * max(map(len, rows)) + 72 * len(columns)
    figure = _figure([trace], chart, width=width, height=70 + 34 * len(rows))
    axis: Json = {"type": "category", "automargin": True, "fixedrange": True, "showgrid": False}
    figure["layout"].update(
        xaxis={**axis, "side": "top", "tickangle": 0},
        yaxis={**axis, "autorange": "reversed"},
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
        annotations=[
            _cell_text(x, y, point)
            for y, row in zip(rows, cells, strict=True)
            for x, point in zip(columns, row, strict=True)
        ],
    )
    return figure


def _cell_text(x: str, y: str, point: Point | None) -> Json:
    """The figure in a field; "missing" is written in the page's own colour."""
    text: Json = {"x": x, "y": y, "showarrow": False, "text": "missing"}
    if point is None:
        return text
    accuracy = in_percent(point.y)
    return {**text, "text": f"{accuracy:.1f}", "font": {"color": ink(accuracy)}}


def _base(series: Series) -> Json:
    """The part that all traces of defences share; the page finds a trace by its ``meta``."""
    return {
        "name": escape(series.name),
        "meta": series.name,
        "customdata": [_hover(point) for point in series.points],
        "hovertemplate": f"{escape(series.name)}<br>%{{customdata}}<extra></extra>",
    }


def _hover(point: Point | None) -> str:
    if point is None:
        return "missing"
    accuracy = f"{percent(point.y)} %"
    if isinstance(point.x, Interval):
        accuracy = f"clean {percent(point.x)} %<br>attacked {accuracy}"
    return f"{accuracy}<br>{escape(point.note)}" if point.note else accuracy


def _error_bars(figures: Sequence[float | Interval]) -> Json:
    below, above = errors(figures)
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.3, "width": 3}
