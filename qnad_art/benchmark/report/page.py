"""The page of a report: what its templates need, and the templates rendered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qnad_art.benchmark.records import RUNGS, Gate, Rung
from qnad_art.benchmark.report import tables
from qnad_art.benchmark.report.chart import COLOURS, Chart, Table, table_of
from qnad_art.benchmark.report.facts import facts, hashes
from qnad_art.benchmark.report.gallery import galleries
from qnad_art.benchmark.report.plotly_figures import plotly_figures
from qnad_art.benchmark.report.view import View
from qnad_art.circuits.drawing import Drawing, circuit_drawings
from qnad_art.errors import QnadError
from qnad_art.version import __version__

if TYPE_CHECKING:
    from qnad_art.benchmark.report.source import Source

MEANINGS: dict[Rung, str] = {
    "transfer": "The attacker knows the plain network only, and attacks the defended one with "
    "what fools the plain one.",
    "white-box": "The attacker follows gradients through the defended network, noise included, "
    "one noise draw per step.",
    "adaptive": "As white-box, with gradients averaged over ever more noise draws (expectation "
    "over transformation) until accuracy stops falling.",
    "surrogate": "The attacker follows gradients of the network’s exact mean, without noise.",
    "seed-known": "The attacker knows the noise draw that the network will use.",
    "black-box": "The attacker sees outputs only, and may average several answers.",
    "persistent": "The attacker submits the same image again and again: it counts as right only "
    "if every answer is.",
}


@dataclass(frozen=True)
class ShownPanel:
    """The place of a plot: the number of its figure in the page's data, and its size in pixels."""

    title: str
    number: int
    width: int
    height: int


@dataclass(frozen=True)
class ShownChart:
    """A chart in the page."""

    anchor: str
    chart: Chart
    panels: tuple[ShownPanel, ...]
    table: Table


@dataclass(frozen=True)
class ShownDevice:
    """The circuits of a device, or the reason why there are none."""

    name: str
    drawings: tuple[Drawing, ...]
    fault: str = ""


@dataclass(frozen=True)
class Section:
    """The results of one model, data set and device, with their charts."""

    anchor: str
    view: View
    charts: list[ShownChart]


def page(source: Source, charts: Sequence[Sequence[Chart]], devices: Sequence[ShownDevice]) -> str:
    """The page of a source as HTML, with the charts of each of its views."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["data_uri"] = _data_uri

    def asset(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    figures: list[dict[str, Any]] = []
    sections = []
    for number, (view, of_view) in enumerate(zip(source.views, charts, strict=True), 1):
        anchor = f"results-{number}"
        sections.append(Section(anchor, view, [_shown(c, anchor, figures) for c in of_view]))
    measured = {result.cell for result in source.results}
    found = {condition.rung for view in source.views for condition in view.conditions}
    return environment.get_template("page.html.j2").render(
        title=source.title,
        version=__version__,
        sections=sections,
        devices=devices,
        facts=facts(source),
        hashes=hashes(source),
        suite=source.suite,
        rungs=[(rung, MEANINGS[rung]) for rung in RUNGS if rung in found],
        many_seeds=len({result.cell.seed for result in source.results}) > 1,
        missing=[cell for cell in source.cells if cell not in measured],
        cells_count=len(source.cells),
        failures=source.failures,
        colours=COLOURS,
        figures=figures,
        style=asset("style.css"),
        script=asset("plots.js"),
        plotly=Markup(get_plotlyjs()),
        tables=tables,
        galleries_of=partial(galleries, examples=source.examples),
        gates_of=_gates_of,
    )


def _shown(chart: Chart, anchor: str, figures: list[dict[str, Any]]) -> ShownChart:
    """A chart in the page, whose figures are added to those of the page."""
    panels = []
    for panel, figure in zip(chart.panels, plotly_figures(chart), strict=True):
        size = figure.pop("width"), figure["layout"]["height"]
        panels.append(ShownPanel(panel.title, len(figures), *size))
        figures.append(figure)
    return ShownChart(f"{anchor}-{chart.key}", chart, tuple(panels), table_of(chart))


def shown_devices(source: Source) -> list[ShownDevice]:
    """The circuits of every device on which something ran."""
    from qnad_art.device.catalogue import load_device

    shown = []
    hashes_of = {r.cell.device: h for r in source.results if (h := r.provenance.device_hash)}
    for label, wanted in hashes_of.items():
        try:
            device = load_device(source.devices[label])
        except (QnadError, KeyError) as error:
            shown.append(ShownDevice(label, (), str(error)))
            continue
        if device.hash == wanted:
            shown.append(ShownDevice(label, tuple(circuit_drawings(device))))
        else:
            shown.append(ShownDevice(label, (), "the device has changed since the run."))
    return shown


def _gates_of(view: View, defence: str) -> list[Gate]:
    """All gates of a defence, failed ones first; with several seeds each gate names its seed."""
    found = {seed: gates for (name, seed), gates in view.gates.items() if name == defence}
    gates = [
        gate if len(found) == 1 else gate.model_copy(update={"name": f"{gate.name}, seed {seed}"})
        for seed, of_seed in found.items()
        for gate in of_seed
    ]
    return sorted(gates, key=lambda gate: gate.verdict != "fail")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
