"""A run: the work that is still to do is sent to workers, and results are written as they come.

This process alone writes results, each one safely on disk before the next is looked at. So a run
that is killed at any moment goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from qnad_art.benchmark.records import Result
from qnad_art.benchmark.run.dispatch import Dispatch, Done, Event, Failed, Said
from qnad_art.benchmark.run.engines.choice import start_engine
from qnad_art.benchmark.run.engines.engine import Engine, Job
from qnad_art.benchmark.run.estimate import estimate
from qnad_art.benchmark.run.folder import Failure, Run, locked
from qnad_art.benchmark.run.notes import Notes
from qnad_art.benchmark.run.planner import Workload, workload_of
from qnad_art.benchmark.run.sinks import Sinks
from qnad_art.benchmark.run.tasks import Preparations, Task
from qnad_art.benchmark.suites.suite import Suite
from qnad_art.plugins.discovery import VARIABLE

_TRUSTED_SECONDS = 10.0
_TRUSTED_SHARE = 0.1
"""Of all that is expected: the first jobs are not like the others."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        jobs, of: how many are done (cells and preparations), and how many there are.
        seconds_left: expected.
    """

    jobs: int
    of: int
    seconds_left: float

    def __str__(self) -> str:
        left = timedelta(seconds=round(self.seconds_left))
        return f"{self.jobs} of {self.of}, about {left} left"


Report = Callable[[str, Progress | None], object]
"""Takes a line on what happened, and where the run is now, once it is under way."""


def run_suite(
    suite: Suite,
    folder: Path,
    *,
    data_dir: str | None = None,
    allow_code: bool = False,
    only: str | None = None,
    engine: str | Engine = "local",
    workers: int | None = None,
    address: str | None = None,
    gpu: bool = False,
    sinks: Sequence[str] = (),
    revise: bool = False,
    report: Report = lambda line, now: None,
) -> Run:
    """Measure all cells of a suite that are not measured yet.

    Args:
        suite: from :func:`~qnad_art.benchmark.suites.suite.load_suite`.
        folder: of the run, new or of the same suite; all workers must see it under this path.
        data_dir: as :func:`qnad_art.datasets.dataset.load_dataset`.
        allow_code: whether code that the suite names may be run, here and by the workers, which
            must see it under the same path or name.
        only: pattern of the cells to measure now, ``None`` for all; see :meth:`Workload.matching`.
        engine: its name, or one that is there.
        workers, address, gpu: of an engine by name, as
            :func:`~qnad_art.benchmark.run.engines.choice.start_engine` takes them.
        sinks: names of :mod:`qnad_art.benchmark.run.sinks` that get the results too. One that fails
            is told of in ``report`` and disturbs nothing.
        revise: whether the folder may hold a run of other cells, see :meth:`Run.begin`.
        report: called for everything that happens; the log gets it too.

    Returns:
        The run: its results, and its failures where cells could not be measured.

    Raises:
        QnadError: the folder is of another suite or in use, something that the suite names cannot
            be used, or there are no workers.
    """
    workload = workload_of(suite, data_dir=data_dir, allow_code=allow_code)
    chosen = workload.matching(only)
    with locked(folder):
        cells = {task.key: task.cell for task in workload.tasks}
        run = Run.begin(folder, suite, cells, revise=revise)
        run.repair()
        results = run.results()
        measured = {result.key for result in results}
        tasks = [task for task in chosen if task.key not in measured]
        there = len(chosen) - len(tasks)
        report(f"{folder}: {len(tasks):,} cells to measure, {there:,} are there.", None)
        with _open(sinks, run, report) as outlet:
            for result in results:
                outlet.take(result)
            if tasks:
                record = _Record(run, tasks, outlet)
                with ExitStack() as stack:
                    if not isinstance(engine, Engine):
                        place = start_engine(engine, workers=workers, address=address, gpu=gpu)
                        engine = stack.enter_context(place)
                        report(engine.awaited, None)
                    costs = estimate(workload).seconds  # while workers start
                    jobs = _jobs(run, workload, tasks, costs, gpu=engine.gpu)
                    _execute(run, jobs, record, engine, report)
    return run


@contextmanager
def _open(names: Sequence[str], run: Run, report: Report) -> Iterator[Sinks]:
    """Sinks that are closed when the run ends or is stopped."""
    sinks = Sinks(names, run, run.folder / "report")
    try:
        yield sinks
    finally:
        lines = [f"Written: {place}" for place in sinks.close()]
        for line in (*lines, *(f"FAILED {failure}" for failure in sinks.failures)):
            run.log(line)
            report(line, None)


def _jobs(
    run: Run, workload: Workload, tasks: Sequence[Task], costs: Mapping[str, float], *, gpu: bool
) -> list[Job]:
    """Preparations that are not there yet, then the tasks."""
    preparations = workload.preparations_for(tasks)
    missing = [unit for unit in preparations if not run.prepared(unit.key).is_dir()]
    common = {
        "run": str(run.folder.resolve()),
        "source": workload.source.model_dump(mode="json"),
        "plugins": os.environ.get(VARIABLE),
        "gpu": gpu,
    }

    def job(unit: Preparations | Task) -> Job:
        text = json.dumps({**common, "work": unit.model_dump(mode="json")})
        return Job(unit.key, unit.needs, text, str(unit), unit.kind, costs[unit.key])

    return [job(unit) for unit in (*missing, *tasks)]


def _execute(
    run: Run, jobs: Sequence[Job], record: _Record, engine: Engine, report: Report
) -> None:
    clock = _Clock(jobs)
    with Notes(run.folder) as notes:
        dispatch = Dispatch(jobs, engine, notes)
        for event in dispatch.events():
            line = record.take(event)
            clock.take(event)
            now = clock.progress(dispatch.seconds_left)
            run.log(f"[{now}] {line}")
            if isinstance(event, Failed) and event.details:
                run.log(event.details)
            report(line, now)


class _Record:
    """Writes what comes of jobs into the run, and gives it to the sinks."""

    def __init__(self, run: Run, tasks: Sequence[Task], sinks: Sinks) -> None:
        self._run, self._sinks = run, sinks
        self._cells = {task.key: task.cell for task in tasks}
        # The others failed before and are not tried now.
        self._failures = [f for f in run.failures() if f.key not in self._cells]
        run.set_failures(self._failures)

    def take(self, event: Event) -> str:
        """Write an event; the line that tells of it."""
        if isinstance(event, Said):
            return event.line
        if isinstance(event, Failed):
            return self._failed(event)
        figure = ""
        if event.value is not None:
            result = Result.model_validate(event.value)
            self._run.append(result)
            self._sinks.take(result)
            low, high = 100 * result.accuracy.low, 100 * result.accuracy.high
            figure = f": accuracy {100 * result.accuracy.value:.1f} % [{low:.1f}, {high:.1f}]"
        return f"{event.job.label}{figure} ({event.seconds:.1f} s)"

    def _failed(self, event: Failed) -> str:
        cell = self._cells.get(event.job.key)
        if cell is not None:
            failure = Failure(key=event.job.key, cell=cell, reason=event.reason)
            self._failures.append(failure)
            self._run.set_failures(self._failures)
        return f"FAILED {event.job.label}: {event.reason}"


class _Clock:
    """Expected time, corrected by how long things really take."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._of = len(jobs)
        # As if some work had taken what was expected.
        trusted = max(_TRUSTED_SECONDS, _TRUSTED_SHARE * sum(job.cost for job in jobs))
        self._jobs, self._expected, self._taken = 0, trusted, trusted

    def take(self, event: Event) -> None:
        self._jobs += not isinstance(event, Said)
        if isinstance(event, Done):
            self._expected += event.job.cost
            self._taken += event.seconds

    def progress(self, expected_left: float) -> Progress:
        return Progress(self._jobs, self._of, expected_left * self._taken / self._expected)
