"""``qnad report``: a run as a page, as figures, and as tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from qnad_art.cli.screen import Console
from qnad_art.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qnad_art.benchmark.run.folder import Run


def report(
    run: Annotated[Path, typer.Argument(help="Run folder written by `qnad evaluate`.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write. The default is `report` in the run folder."),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="Formats to write, separated by commas: html, png, svg, and sinks such as csv or "
            "parquet.",
        ),
    ] = "html,png,svg",
) -> None:
    """Write the report of a run: an HTML page, its figures, and tables of the results."""
    from qnad_art.benchmark.report import Format, write_report
    from qnad_art.benchmark.run.folder import Run
    from qnad_art.plugins.discovery import find_plugins

    console = Console(soft_wrap=True)
    shown: tuple[Format, ...] = get_args(Format)
    asked = dict.fromkeys(name.strip() for name in formats.split(","))
    valid = (*shown, *(plugin.name for plugin in find_plugins("sink")))
    for name in asked:
        if name not in valid:
            raise UnknownNameError("format", name, valid)
    opened = Run.open(run)
    folder = output or opened.folder / "report"
    with console.status("Writing the report"):
        pictures = [name for name in shown if name in asked]
        if pictures:
            write_report(opened, folder, formats=pictures)
        written, failures = _send(opened, folder, [name for name in asked if name not in shown])
    if "html" in asked:
        written.insert(0, str(folder / "report.html"))
    if asked.keys() & {"png", "svg"}:
        written.append(str(folder / "figures"))
    for place in written:
        console.print(f"Written: {place}")
    for failure in failures:
        console.print(f"FAILED {failure}")
    raise typer.Exit(1 if failures else 0)


def _send(run: Run, folder: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Give all results to sinks; where they are, and what failed."""
    from qnad_art.benchmark.report.source import results_of
    from qnad_art.benchmark.run.sinks import Sinks

    results = results_of(run) if names else []
    sinks = Sinks(names, run, folder)
    for result in results:
        sinks.take(result)
    written = sinks.close()
    return written, sinks.failures
