"""The page: everything a template needs, and the templates rendered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qnad_art.benchmark.records import RUNGS, Gate, Rung
from qnad_art.benchmark.report import tables
from qnad_art.benchmark.report.chart import COLOURS, Chart, Table, table_of
from qnad_art.benchmark.report.facts import facts, hashes
from qnad_art.benchmark.report.gallery import Gallery, galleries
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
    "one noise draw a step.",
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
    """A place for a plot: its figure's number in the page's data, and its size in pixels."""

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
class ShownAudit:
    """The checklist of a defence."""

    title: str
    words: str
    failed: bool
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class ShownDevice:
    """Circuits of a device, or why there are none."""

    name: str
    drawings: tuple[Drawing, ...]
    fault: str = ""


@dataclass(frozen=True)
class Section:
    """All of one model, data set and device."""

    anchor: str
    view: View
    failed: list[tuple[str, list[str]]]
    headline: Table
    improvements: Table
    accuracies: list[Table]
    perturbations: Table | None
    costs: Table
    charts: list[ShownChart]
    galleries: list[Gallery]
    audits: list[ShownAudit]


class Page:
    """The page of a source, with the charts of each of its views."""

    def __init__(
        self, source: Source, charts: Sequence[Sequence[Chart]], devices: Sequence[ShownDevice]
    ) -> None:
        self.source = source
        self.devices = devices
        self.figures: list[dict[str, Any]] = []
        self.sections = [
            self._section(f"results-{number}", view, of_view)
            for number, (view, of_view) in enumerate(zip(source.views, charts, strict=True), 1)
        ]

    def _section(self, anchor: str, view: View, charts: Sequence[Chart]) -> Section:
        return Section(
            anchor=anchor,
            view=view,
            failed=[(d, failed) for d in view.defences if (failed := view.failed(d))],
            headline=tables.headline(view),
            improvements=tables.improvements(view),
            accuracies=tables.accuracies(view),
            perturbations=tables.perturbations(view),
            costs=tables.costs(view),
            charts=[self._chart(anchor, chart) for chart in charts],
            galleries=galleries(view, self.source.examples),
            audits=[_audit(view, defence) for defence in view.defences],
        )

    def _chart(self, anchor: str, chart: Chart) -> ShownChart:
        panels = []
        for panel, figure in zip(chart.panels, plotly_figures(chart), strict=True):
            size = figure.pop("width"), figure["layout"]["height"]
            panels.append(ShownPanel(panel.title, len(self.figures), *size))
            self.figures.append(figure)
        return ShownChart(f"{anchor}-{chart.key}", chart, tuple(panels), table_of(chart))

    def html(self) -> str:
        """The page as text."""
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

        source = self.source
        measured = {result.cell for result in source.results}
        missing = [cell for cell in source.cells if cell not in measured]
        found = {condition.rung for s in self.sections for condition in s.view.conditions}
        return environment.get_template("page.html.j2").render(
            title=source.title,
            version=__version__,
            sections=self.sections,
            devices=self.devices,
            facts=facts(source),
            hashes=hashes(source),
            suite=source.suite,
            rungs=[(rung, MEANINGS[rung]) for rung in RUNGS if rung in found],
            many_seeds=len({result.cell.seed for result in source.results}) > 1,
            missing=missing,
            cells_count=len(source.cells),
            failures=source.failures,
            colours=COLOURS,
            figures=self.figures,
            style=asset("style.css"),
            script=asset("plots.js"),
            plotly=Markup(get_plotlyjs()),
        )


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


def _audit(view: View, defence: str) -> ShownAudit:
    """All gates of a defence, failed ones first; with several seeds a gate says under which."""
    found = {seed: gates for (name, seed), gates in view.gates.items() if name == defence}
    gates = tuple(
        gate if len(found) == 1 else gate.model_copy(update={"name": f"{gate.name}, seed {seed}"})
        for seed, of_seed in found.items()
        for gate in of_seed
    )
    gates = tuple(sorted(gates, key=lambda gate: gate.verdict != "fail"))
    words = tables.audit_words(view, defence)
    return ShownAudit(defence, words, bool(view.failed(defence)), gates)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
