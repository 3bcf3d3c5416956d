"""``qnad report``: an HTML page of a run, its figures, and tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer
from typer import Argument, Option

from qnad_art.cli.screen import Console
from qnad_art.errors import UnknownNameError


def report(
    run: Annotated[Path, Argument(help="Run folder written by `qnad evaluate`.")],
    output: Annotated[
        Path | None, Option(help="Folder to write. The default is `report` in the run folder.")
    ] = None,
    formats: Annotated[
        str,
        Option(
            "--format",
            help="Formats, separated by commas: html, png, svg, and sinks such as csv or parquet.",
        ),
    ] = "html,png,svg",
) -> None:
    """Write the report of a run: an HTML page, its figures, and tables of the results."""
    from qnad_art.benchmark.report import Format, write_report
    from qnad_art.benchmark.report.source import results_of
    from qnad_art.benchmark.run.folder import Run
    from qnad_art.benchmark.run.sinks import Sinks
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
        if pictures := [name for name in shown if name in asked]:
            write_report(opened, folder, formats=pictures)
        names = [name for name in asked if name not in shown]
        sinks = Sinks(names, opened, folder)
        for result in results_of(opened) if names else ():
            sinks.take(result)
        written = sinks.close()
    if "html" in asked:
        written.insert(0, str(folder / "report.html"))
    if asked.keys() & {"png", "svg"}:
        written.append(str(folder / "figures"))
    for place in written:
        console.print(f"Written: {place}")
    for failure in sinks.failures:
        console.print(f"FAILED {failure}")
    raise typer.Exit(1 if sinks.failures else 0)
