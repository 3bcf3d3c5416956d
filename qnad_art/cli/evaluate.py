"""``qnad evaluate``: run a suite of defences under attack, on this machine or on a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from qnad_art.cli import inputs
from qnad_art.cli.inputs import duration
from qnad_art.cli.screen import Console, printable
from qnad_art.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from qnad_art.benchmark.run.folder import Run
    from qnad_art.benchmark.run.runner import Progress, Report
    from qnad_art.benchmark.suites.suite import Suite


def evaluate(
    suite: Annotated[Path | None, typer.Argument(help="Suite, a YAML file.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; default: runs/NAME-OF-THE-SUITE.")
    ] = None,
    data_dir: inputs.DataDir = None,
    engine: Annotated[str, typer.Option(help="local, dask or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a running cluster; default: one on this machine.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; default: one for each core, or all that the cluster has."),
    ] = None,
    gpu: inputs.Gpu = False,
    only: Annotated[
        str | None, typer.Option(help="Only cells that match, e.g. '*pgd*white-box*'.")
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="Send results there too (csv, …); repeatable.")
    ] = None,
    revise: Annotated[
        bool,
        typer.Option(
            "--revise", help="The suite was changed: keep the results that fit, drop the others."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and estimate the time.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of suites, for editors.")
    ] = False,
) -> None:
    """Measure every cell of a suite; the same command continues a run that was stopped.

    Exit status 1 if cells failed, 130 if it was stopped.
    """
    console = Console(soft_wrap=True)
    if schema:
        from qnad_art.benchmark.suites.schema import suite_schema

        typer.echo(json.dumps(suite_schema(), indent=2))
        return
    if suite is None:
        raise InvalidInputError("Give a suite: qnad evaluate SUITE.yaml (or --schema).")
    folder = data_dir or os.environ.get("QNAD_DATA_DIR")
    images = None if folder is None else str(Path(folder).resolve())
    from qnad_art.benchmark.run.engines.choice import ENGINES, start_engine
    from qnad_art.benchmark.run.sinks import check_sinks

    if engine not in ENGINES:  # also where nothing is left to measure
        raise UnknownNameError("engine", engine, ENGINES)
    if dry_run:
        _list(console, suite, images, only, workers)
        return
    check_sinks(sink or [])
    options = {"data_dir": images, "only": only, "sinks": sink or [], "revise": revise}
    # Workers start while this process reads the suite, which takes as long.
    with start_engine(engine, workers=workers, address=address, gpu=gpu) as place:
        console.print(place.awaited)
        run = _run(console, suite, output, engine=place, **options)
    _conclude(console, run)


def _run(console: Console, path: Path, output: Path | None, **options: Any) -> Run:
    from qnad_art.benchmark.suites.suite import load_suite

    suite = load_suite(path)
    return measure(console, suite, output or Path("runs") / suite.name, **options)


def measure(console: Console, suite: Suite, folder: Path, **options: Any) -> Run:
    """Run a suite with progress on the console; Ctrl-C ends the command with status 130."""
    from qnad_art.benchmark.run.runner import run_suite

    try:
        with _screen(console) as report:
            return run_suite(suite, folder, report=report, **options)
    except KeyboardInterrupt:
        console.print("Stopped. What is measured is kept: the same command goes on.")
        raise typer.Exit(130) from None


def _conclude(console: Console, run: Run) -> None:
    failures = run.failures()
    measured = f"{len(run.results()):,} of {len(run.cells):,} cells are measured"
    console.print(f"{measured}. Results: {run.folder}")
    for failure in failures:
        console.print(f"FAILED {failure.cell}: {failure.reason}")
    if failures:
        console.print(
            f"{len(failures):,} cells failed; {run.folder / 'log.txt'} says more, and the same "
            "command tries them again."
        )
        raise typer.Exit(1)


def _list(
    console: Console, path: Path, data_dir: str | None, only: str | None, workers: int | None
) -> None:
    """The cells, what is left out, and how long it may take."""
    from qnad_art.benchmark.run.engines.engine import cores
    from qnad_art.benchmark.run.estimate import estimate
    from qnad_art.benchmark.run.planner import workload_of
    from qnad_art.benchmark.suites.suite import load_suite

    workload = workload_of(load_suite(path), data_dir=data_dir)
    chosen = workload.matching(only)
    preparations = workload.preparations_for(chosen)
    expected = estimate(workload)
    units = (*preparations, *chosen)
    for unit in units:
        console.print(f"{duration(expected.seconds[unit.key])}  {unit}")
    for reason, count in workload.left_out.items():
        console.print(f"Left out: {count:,} cells, {reason}.")
    workers = workers or cores()
    total = duration(sum(expected.seconds[unit.key] for unit in units) / workers)
    console.print(
        f"{len(chosen):,} cells and {len(preparations):,} preparations, about {total} on {workers} "
        f"workers: {expected.basis}."
    )


@contextmanager
def _screen(console: Console) -> Iterator[Report]:
    """What shows progress: a bar in a terminal, else a line for everything that happens."""
    if not console.is_terminal:

        def tell(line: str, now: Progress | None) -> None:
            console.print(line if now is None else f"[{now}] {line}")

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console) as bars:
        bar = bars.add_task("reading images, devices and weights", total=None)

        def show(line: str, now: Progress | None) -> None:
            if now is None:
                bars.console.print(line)
                bars.update(bar, description="starting workers")
                return
            if line.startswith(("FAILED", "A worker", "No worker", "Started again")):
                bars.console.print(line)
            left = f"about {duration(now.seconds_left)} left"
            shown = escape(printable(line))
            bars.update(bar, total=now.of, completed=now.jobs, description=f"{left}  {shown}")

        yield show
