"""``qnad evaluate``: run a suite of defences under attack, on this machine or on a cluster."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from qnad_art.cli import inputs
from qnad_art.cli.inputs import duration
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from qnad_art.benchmark.runner import Outcome, Progress
    from qnad_art.benchmark.store import Run
    from qnad_art.benchmark.tasks import Task
    from qnad_art.benchmark.workload import Workload


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
        int | None, typer.Option(help="Processes; default: one a core of machine or cluster.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Only cells that match, e.g. '*pgd*white-box*'.")
    ] = None,
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
    console = Console(highlight=False, soft_wrap=True)
    if schema:
        from qnad_art.benchmark.schema import suite_schema

        typer.echo(json.dumps(suite_schema(), indent=2))
        return
    if suite is None:
        raise InvalidInputError("Give a suite: qnad evaluate SUITE.yaml (or --schema).")
    with _terminable():
        _evaluate(console, suite, output, data_dir, _Place(engine, address, workers), only, dry_run)


@dataclass(frozen=True)
class _Place:
    engine: str
    address: str | None
    workers: int | None


def _evaluate(
    console: Console,
    path: Path,
    output: Path | None,
    data_dir: Path | None,
    place: _Place,
    only: str | None,
    dry_run: bool,
) -> None:
    from qnad_art.benchmark.store import Run, locked
    from qnad_art.benchmark.suite import load_suite
    from qnad_art.benchmark.workload import workload_of

    suite = load_suite(path)
    images = data_dir or os.environ.get("QNAD_DATA_DIR")
    with console.status("Reading images, devices and weights"):
        workload = workload_of(
            suite, data_dir=None if images is None else str(Path(images).resolve())
        )
    chosen = [task for task in workload.tasks if only is None or fnmatchcase(str(task), only)]
    if not chosen:
        raise InvalidInputError(f"No cell matches {only!r}; --dry-run lists them.")
    folder = output or Path("runs") / suite.name
    cells = {task.key: task.cell for task in workload.tasks}
    if dry_run:
        _list(console, workload, chosen, place)
        return
    with locked(folder):
        run = Run.begin(folder, suite, cells)
        run.repair()
        console.print(f"Run folder: {folder}")
        outcome = _run(console, run, workload, chosen, place)
    _conclude(console, run, outcome)


def _run(
    console: Console, run: Run, workload: Workload, chosen: list[Task], place: _Place
) -> Outcome:
    from qnad_art.benchmark.engines import start_engine
    from qnad_art.benchmark.estimate import estimate
    from qnad_art.benchmark.runner import Outcome, execute, open_tasks

    wanted = {task.key for task in chosen}
    tasks = [task for task in open_tasks(run, workload) if task.key in wanted]
    console.print(f"{len(tasks):,} cells to measure, {len(chosen) - len(tasks):,} are there.")
    if not tasks:
        return Outcome(0, run.failures())
    try:
        with (
            start_engine(place.engine, workers=place.workers, address=place.address) as engine,
            _screen(console) as report,
        ):
            costs = estimate(workload).seconds
            return execute(run, workload, tasks, engine, costs=costs, report=report)
    except KeyboardInterrupt:
        measured = len(run.results())
        run.log("Stopped.")
        console.print(
            f"Stopped. {measured:,} of {len(run.cells):,} cells are measured and kept; the same "
            "command goes on."
        )
        raise typer.Exit(130) from None


def _conclude(console: Console, run: Run, outcome: Outcome) -> None:
    measured = len(run.results())
    console.print(f"{measured:,} of {len(run.cells):,} cells are measured. Results: {run.folder}")
    for failure in outcome.failures:
        console.print(f"FAILED {failure.cell}: {failure.reason}", markup=False)
    if outcome.failures:
        console.print(
            f"{len(outcome.failures):,} cells failed; {run.folder / 'log.txt'} says more, and the "
            "same command tries them again."
        )
        raise typer.Exit(1)


def _list(console: Console, workload: Workload, chosen: list[Task], place: _Place) -> None:
    """The cells, what is left out, and how long it may take."""
    from qnad_art.benchmark.engines import cores
    from qnad_art.benchmark.estimate import estimate

    expected = estimate(workload)
    preparations = workload.preparations_for(chosen)
    for work in (*preparations, *chosen):
        console.print(f"{duration(expected.seconds[work.key])}  {work}", markup=False)
    for reason, count in workload.left_out.items():
        console.print(f"Left out: {count:,} cells, {reason}.", markup=False)
    workers = place.workers or cores()
    total = sum(expected.seconds[work.key] for work in (*preparations, *chosen))
    console.print(
        f"{len(chosen):,} cells and {len(preparations):,} preparations, about "
        f"{duration(total / workers)} on {workers} workers: {expected.basis}."
    )


@contextmanager
def _screen(console: Console) -> Iterator[Callable[[str, Progress], None]]:
    """What shows progress: a bar in a terminal, else a line for everything that happens."""
    if not console.is_terminal:

        def tell(line: str, now: Progress) -> None:
            console.print(f"[{now}] {line}", markup=False)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console) as bars:
        bar = bars.add_task("starting workers", total=None)

        def show(line: str, now: Progress) -> None:
            if line.startswith(("FAILED", "A worker", "The engine")):
                bars.console.print(line, markup=False)
            left = f"about {duration(now.seconds_left)} left"
            bars.update(
                bar, total=now.of, completed=now.jobs, description=f"{left}  {escape(line)}"
            )

        yield show


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
