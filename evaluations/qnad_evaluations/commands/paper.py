"""``qnad paper`` and ``qnad results``: the paper's evaluation, and the page of its records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qnad_art.cli import evaluate, inputs
from qnad_art.cli.inputs import duration
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError, QnadError

if TYPE_CHECKING:
    from qnad_art.benchmark.suites.suite import Suite
    from qnad_evaluations.paper.suites import SuiteFile


def paper(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these suites, e.g. 'paper/lenet*'; default: all of the size."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Embedded data, LeNet-5: 15 minutes on 2 cores.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="All test images: for a large machine.")
    ] = False,
    data_dir: inputs.DataDir = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of weights files; default: evaluations/weights.")
    ] = None,
    hardened: Annotated[
        Path | None,
        typer.Option(help="Folder of `qnad harden`'s folders; default: evaluations/hardened."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    record: Annotated[
        Path | None,
        typer.Option(help="Folder for results/ and RESULTS.md; default: that of the runs."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    gpu: inputs.Gpu = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the suites and estimate their time.")
    ] = False,
) -> None:
    """Run the paper's evaluation: every suite, its record, and a page of what they say.

    The default size is reduced: fewer images, for 2 cores. The same command continues a run that
    was stopped; cells that a changed plan or suite does not touch are not measured again. Exit
    status 1 if cells failed or a suite was left out.
    """
    from qnad_evaluations.paper.suites import Size, find_suites

    if quick and full:
        raise InvalidInputError("--quick or --full, not both.")
    size: Size = "quick" if quick else "full" if full else "reduced"
    console = Console(soft_wrap=True)
    folder = data_dir or os.environ.get("QNAD_DATA_DIR")
    images = None if folder is None else str(Path(folder).resolve())
    record = record or output
    complete, ran = True, False
    for suite in find_suites(size, names or ()):
        try:
            content = _ready(suite, images, weights, hardened)
        except QnadError as error:
            console.print(f"LEFT OUT {suite.place}: {error}")
            complete = False
            continue
        if dry_run:
            _estimate(console, suite, content, images, workers)
        else:
            place = {"workers": workers, "gpu": gpu}
            complete &= _run(console, suite, content, output, record, images, place)
            ran = True
    if ran:
        results(record)
    raise typer.Exit(0 if complete else 1)


def results(
    folder: Annotated[
        Path, typer.Argument(help="Where `qnad paper --record` wrote, with results/ in it.")
    ] = Path("evaluations"),
) -> None:
    """Write RESULTS.md and its figures from the records in a folder."""
    from qnad_evaluations.paper.page import write_page

    console = Console(soft_wrap=True)
    with console.status("Writing the page"):
        page = write_page(folder)
    console.print(f"Written: {page}")


def _ready(
    suite: SuiteFile, data_dir: str | None, weights: Path | None, hardened: Path | None
) -> Suite:
    """The suite, if all is there that it needs."""
    from qnad_art.benchmark.suites.sources import load_images
    from qnad_evaluations.paper.suites import missing_files

    content = suite.load(weights, hardened)
    missing = missing_files(content)
    if missing:
        raise InvalidInputError(f"it needs {', '.join(missing)}.")
    load_images(content.data, data_dir)
    return content


def _run(
    console: Console,
    suite: SuiteFile,
    content: Suite,
    output: Path,
    record: Path,
    data_dir: str | None,
    place: dict[str, Any],
) -> bool:
    """Run and record a suite; whether all its cells are measured."""
    from qnad_art.benchmark.suites.sources import load_images
    from qnad_evaluations.paper.record import record_run

    options: dict[str, Any] = {"data_dir": data_dir, **place, "revise": True}
    console.print(f"{suite.place}")
    run = evaluate.measure(console, content, output / suite.place, **options)
    _, test = load_images(content.data, data_dir)
    if run.results():
        size = {"quick": " --quick", "full": " --full"}.get(suite.size, "")
        command = f"qnad paper {suite.collection}/{suite.path.stem}{size}"
        path = record_run(run, suite, command, test.provenance).write(record / "results")
        console.print(f"Recorded: {path}")
    failures = run.failures()
    for failure in failures:
        console.print(f"FAILED {failure.cell}: {failure.reason}")
    return not failures


def _estimate(
    console: Console, suite: SuiteFile, content: Suite, data_dir: str | None, workers: int | None
) -> None:
    from joblib import cpu_count

    from qnad_art.benchmark.run.estimate import estimate
    from qnad_art.benchmark.run.planner import workload_of

    workload = workload_of(content, data_dir=data_dir)
    expected = estimate(workload)
    workers = workers or cpu_count()
    total = duration(sum(expected.seconds.values()) / workers)
    console.print(
        f"{suite.place}: {len(workload.tasks):,} cells, about {total} on {workers} workers "
        f"({expected.basis}).",
        markup=False,
    )
