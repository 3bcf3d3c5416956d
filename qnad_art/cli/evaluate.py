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
from typer import Argument, Option

from qnad_art.cli import inputs
from qnad_art.cli.inputs import duration
from qnad_art.cli.screen import Console, printable
from qnad_art.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from qnad_art.benchmark.run.folder import Run
    from qnad_art.benchmark.run.runner import Progress, Report
    from qnad_art.benchmark.suites.suite import Suite


def evaluate(
    suite: Annotated[Path | None, Argument(help="YAML file that describes the suite.")] = None,
    model: Annotated[
        str | None,
        Option(
            help="Network to measure instead of those in the suite: a weights file, a pretrained "
            f"network, or a network to train. {inputs.RUNS_CODE}"
        ),
    ] = None,
    allow_code: Annotated[
        bool,
        Option(
            "--allow-code",
            help="Run the code that the suite names for its networks. Read it first: it can do "
            "anything that you can.",
        ),
    ] = False,
    output: Annotated[
        Path | None, Option(help="Run folder. The default is runs/NAME-OF-THE-SUITE.")
    ] = None,
    data_dir: inputs.DataDir = None,
    engine: Annotated[
        str, Option(help="Engine that runs the cells: local, dask or ray.")
    ] = "local",
    address: Annotated[
        str | None,
        Option(help="Address of a running cluster. The default is a new cluster on this machine."),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            help="Number of worker processes. The default is one for each core of the machine or "
            "cluster."
        ),
    ] = None,
    gpu: inputs.Gpu = False,
    only: Annotated[
        str | None,
        Option(help="Measure only the cells that match a pattern such as '*pgd*white-box*'."),
    ] = None,
    sink: Annotated[
        list[str] | None,
        Option(help="Also send the results to this sink, such as csv. May be repeated."),
    ] = None,
    revise: Annotated[
        bool,
        Option(
            "--revise",
            help="Continue the run of a suite that has changed: keep the results that still apply "
            "and delete the others.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        Option(
            "--dry-run", help="List the cells and estimate the time without measuring anything."
        ),
    ] = False,
    schema: Annotated[
        bool,
        Option("--schema", help="Print the JSON schema of suites, for editors that check them."),
    ] = False,
) -> None:
    """Measure every cell of a suite of defences under attack.

    To continue a run that was stopped, repeat the command. The exit status is 1 if cells failed
    and 130 if the run was stopped.
    """
    console = Console(soft_wrap=True)
    if schema:
        from qnad_art.benchmark.suites.schema import suite_schema

        typer.echo(json.dumps(suite_schema(), indent=2))
        return
    if suite is None:
        raise InvalidInputError("No suite is given: qnad evaluate SUITE.yaml (or --schema).")
    given = data_dir or os.environ.get("QNAD_DATA_DIR")
    images = None if given is None else str(Path(given).resolve())
    from qnad_art.benchmark.run.engines.choice import ENGINES, start_engine
    from qnad_art.benchmark.run.sinks import check_sinks
    from qnad_art.benchmark.suites.suite import load_suite

    if engine not in ENGINES:  # checked even if nothing is left to measure
        raise UnknownNameError("engine", engine, ENGINES)
    check_sinks(sink or [])

    def read() -> tuple[Suite, dict[str, Any]]:
        content = load_suite(suite, allow_code=allow_code, model=model)
        code = [spec.code for spec in content.models.values() if spec.code is not None]
        for reference in code:
            inputs.tell_code(reference)
        return content, {"data_dir": images, "allow_code": bool(code), "only": only}

    if dry_run:
        content, asked = read()
        _list(console, content, workers=workers, **asked)
        return
    # Workers start while this process reads the suite, which takes as long.
    with start_engine(engine, workers=workers, address=address, gpu=gpu) as place:
        console.print(place.awaited)
        content, asked = read()
        folder = output or Path("runs") / content.name
        options = {**asked, "sinks": sink or [], "revise": revise}
        run = measure(console, content, folder, engine=place, **options)
    _conclude(console, run)


def measure(console: Console, suite: Suite, folder: Path, **options: Any) -> Run:
    """Run a suite with progress on the console; Ctrl-C ends the command with status 130."""
    from qnad_art.benchmark.run.runner import run_suite

    try:
        with _screen(console) as report:
            return run_suite(suite, folder, report=report, **options)
    except KeyboardInterrupt:
        console.print("Stopped. All results so far are kept; repeat the command to continue.")
        raise typer.Exit(130) from None


def _conclude(console: Console, run: Run) -> None:
    failures = run.failures()
    measured = f"{len(run.results()):,} of {len(run.cells):,} cells are measured"
    console.print(f"{measured}. The results are in {run.folder}.")
    for failure in failures:
        console.print(f"FAILED {failure.cell}: {failure.reason}")
    if failures:
        console.print(
            f"{len(failures):,} cells failed. See {run.folder / 'log.txt'} for details, and repeat "
            "the command to try them again."
        )
        raise typer.Exit(1)


def _list(
    console: Console, suite: Suite, *, only: str | None, workers: int | None, **options: Any
) -> None:
    """Print the cells, what is left out, and an estimate of the time."""
    from qnad_art.benchmark.run.engines.engine import cores
    from qnad_art.benchmark.run.estimate import estimate
    from qnad_art.benchmark.run.planner import workload_of

    workload = workload_of(suite, **options)
    chosen = workload.matching(only)
    preparations = workload.preparations_for(chosen)
    expected = estimate(workload)
    units = (*preparations, *chosen)
    for unit in units:
        console.print(f"{duration(expected.seconds[unit.key])}  {unit}")
    for reason, count in workload.left_out.items():
        console.print(f"Skipping {count:,} cells: {reason}.")
    workers = workers or cores()
    total = duration(sum(expected.seconds[unit.key] for unit in units) / workers)
    console.print(
        f"{len(chosen):,} cells and {len(preparations):,} preparations, about {total} on {workers} "
        f"workers: {expected.basis}."
    )


@contextmanager
def _screen(console: Console) -> Iterator[Report]:
    """Show progress: as a bar in a terminal, and as a line per event elsewhere."""
    if not console.is_terminal:

        def tell(line: str, now: Progress | None) -> None:
            console.print(line if now is None else f"[{now}] {line}")

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console) as bars:
        bar = bars.add_task("Reading images, devices and weights", total=None)

        def show(line: str, now: Progress | None) -> None:
            if now is None:
                bars.console.print(line)
                bars.update(bar, description="Starting workers")
                return
            if line.startswith(("FAILED", "A worker", "No worker", "Started again")):
                bars.console.print(line)
            left = f"about {duration(now.seconds_left)} left"
            shown = escape(printable(line))
            bars.update(bar, total=now.of, completed=now.jobs, description=f"{left}  {shown}")

        yield show
