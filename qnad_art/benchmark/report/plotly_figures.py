"""Charts as Plotly figures: plain JSON, coloured by the page so that they follow its theme."""

from __future__ import annotations

from html import escape
from typing import Any

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import (
    COLOURS,
    Chart,
    Panel,
    Point,
    Series,
    categories,
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
            "y": [_percent(point.y) for point in series.points],
            "line": {"color": _colour(series), "width": 2, "dash": _of(DASHES, series)},
            "marker": {"symbol": _of(MARKERS, series), "size": 8},
        }
        for series in panel.series
    ]
    figure = _figure(traces, chart)
    ticks = sorted({float(p.x) for s in panel.series for p in s.points if isinstance(p.x, float)})
    if chart.log:
        text = [f"{tick:.4g}" for tick in ticks]
        figure["layout"]["xaxis"].update(type="log", tickvals=ticks, ticktext=text)
    return figure


def _band(series: Series, among: int) -> list[Json]:
    """The area between the ends of the intervals, fainter where many lie upon each other."""
    points = [point for point in series.points if isinstance(point.y, Interval)]
    if len(points) < 2:
        return []
    x = [point.x for point in points]
    low = [100 * point.y.low for point in points if isinstance(point.y, Interval)]
    high = [100 * point.y.high for point in points if isinstance(point.y, Interval)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(series.name),
            "meta": series.name,
            "x": x + x[::-1],
            "y": high + low[::-1],
            "fill": "toself",
            "fillcolor": _faint(_colour(series), 0.6 / max(among, 3)),
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
            "y": [_percent(point.y) for point in series.points],
            "error_y": _errors([point.y for point in series.points]),
            "marker": {
                "color": _colour(series),
                "pattern": {"shape": _of(PATTERNS, series), "fillmode": "replace", "size": 6},
                "line": {"color": _colour(series), "width": 1},
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
    for series in panel.series:
        across = [point.x for point in series.points if isinstance(point.x, Interval)]
        traces.append(
            {
                **_base(series),
                "type": "scatter",
                "mode": "markers",
                "x": [100 * x.value for x in across],
                "y": [_percent(point.y) for point in series.points],
                "error_x": _errors(across),
                "error_y": _errors([point.y for point in series.points]),
                "marker": {
                    "symbol": _of(MARKERS, series),
                    "size": 11,
                    "color": _colour(series),
                },
            }
        )
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
        "z": [[None if p is None else _percent(p.y) for p in row] for row in cells],
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
    """The figure in a field; what is missing is said in the page's own colour."""
    text: Json = {"x": x, "y": y, "showarrow": False, "text": "missing"}
    if point is None:
        return text
    accuracy = _percent(point.y)
    return {**text, "text": f"{accuracy:.1f}", "font": {"color": ink(accuracy)}}


def _base(series: Series) -> Json:
    """What all traces of defences share; ``meta`` is the name by which the page finds them."""
    return {
        "name": escape(series.name),
        "meta": series.name,
        "customdata": [_hover(point) for point in series.points],
        "hovertemplate": f"{escape(series.name)}<br>%{{customdata}}<extra></extra>",
    }


def _hover(point: Point | None) -> str:
    if point is None:
        return "missing"
    accuracy = _interval_text(point.y)
    if isinstance(point.x, Interval):
        accuracy = f"clean {_interval_text(point.x)}<br>attacked {accuracy}"
    return f"{accuracy}<br>{escape(point.note)}" if point.note else accuracy


def _interval_text(figure: float | Interval) -> str:
    return f"{percent(figure)} %"


def _percent(figure: float | Interval) -> float:
    return 100 * (figure.value if isinstance(figure, Interval) else figure)


def _errors(figures: list[float | Interval] | list[Interval]) -> Json:
    """Plotly's error bars, which it wants as distances."""
    known = [f if isinstance(f, Interval) else Interval(value=f, low=f, high=f) for f in figures]
    return {
        "type": "data",
        "array": [100 * (f.high - f.value) for f in known],
        "arrayminus": [100 * (f.value - f.low) for f in known],
        "thickness": 1.3,
        "width": 3,
    }


def _colour(series: Series) -> str:
    return COLOURS[series.look % len(COLOURS)]


def _faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:.2f})"


def _of(looks: tuple[str, ...], series: Series) -> str:
    return looks[series.look % len(looks)]
