"""The report of a run: one self-contained HTML page, and its figures as PNG and SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from qnad_art.errors import UnknownNameError

if TYPE_CHECKING:
    from qnad_art.benchmark.report.source import Source
    from qnad_art.benchmark.run.folder import Run

Format = Literal["html", "png", "svg"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_report(
    run: Run, output: Path | None = None, *, formats: Sequence[Format] = FORMATS
) -> Path:
    """Write the report of a run.

    Args:
        run: run, complete or not.
        output: folder to write; ``None`` for the folder ``report`` in that of the run.
        formats: ``html`` writes ``report.html``, ``png`` and ``svg`` write ``figures/``.

    Returns:
        The folder.

    Raises:
        UnknownNameError: an unknown format.
        ArtifactError: the run has no results yet.
    """
    from qnad_art.benchmark.report.source import read_source

    return write_source(read_source(run), output or run.folder / "report", formats)


def write_source(source: Source, output: Path, formats: Sequence[Format] = FORMATS) -> Path:
    """Write a report as :func:`write_report` does, from what was read from a run."""
    from qnad_art.benchmark.report.figures import charts_of
    from qnad_art.benchmark.report.matplotlib_figures import picture
    from qnad_art.benchmark.report.page import page, shown_devices
    from qnad_art.files.atomic import write_bytes

    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    charts = [charts_of(view, source.families) for view in source.views]
    devices = shown_devices(source)
    for extension in (name for name in formats if name != "html"):
        folder = output / "figures"
        for number, of_view in enumerate(charts, start=1):
            for chart in of_view:
                file = folder / f"results-{number}-{chart.key}.{extension}"
                write_bytes(file, picture(chart, extension))
        for number, device in enumerate(devices, start=1):
            for drawing in device.drawings:
                file = folder / f"device-{number}-{drawing.key}.{extension}"
                write_bytes(file, drawing.image(extension=extension))
    if "html" in formats:
        write_bytes(output / "report.html", page(source, charts, devices).encode())
    return output
