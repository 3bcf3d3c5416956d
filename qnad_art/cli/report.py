"""``qnad report``: a run as a page, figures, and tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from qnad_art.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qnad_art.benchmark.store import Run

TABLES = {"parquet": "results.parquet", "csv": "results.csv", "latex": "results.tex"}


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of `qnad evaluate`.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder; default: report in the run folder.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="Of html, png, svg, parquet, csv, latex, with commas."),
    ] = "html,png,svg",
) -> None:
    """Write a run's report: one HTML page, its figures, and tables of the results."""
    from qnad_art.benchmark.report import Format, write_report
    from qnad_art.benchmark.store import Run

    console = Console(highlight=False, soft_wrap=True)
    shown: tuple[Format, ...] = get_args(Format)
    asked = dict.fromkeys(name.strip() for name in formats.split(","))
    for name in asked:
        if name not in (*shown, *TABLES):
            raise UnknownNameError("format", name, (*shown, *TABLES))
    opened = Run.open(run)
    folder = output or opened.folder / "report"
    with console.status("Writing the report"):
        pictures = [name for name in shown if name in asked]
        if pictures:
            write_report(opened, folder, formats=pictures)
        written = _write_tables(opened, folder, [name for name in TABLES if name in asked])
    if "html" in asked:
        written.insert(0, folder / "report.html")
    if asked.keys() & {"png", "svg"}:
        written.append(folder / "figures")
    for path in written:
        console.print(f"Written: {path}", markup=False)


def _write_tables(run: Run, folder: Path, names: Sequence[str]) -> list[Path]:
    from qnad_art.benchmark import export
    from qnad_art.benchmark.report.source import results_of

    writers = {
        "parquet": export.write_parquet,
        "csv": export.write_csv,
        "latex": export.write_latex,
    }
    results = results_of(run) if names else []
    for name in names:
        writers[name](results, folder / TABLES[name])
    return [folder / TABLES[name] for name in names]
