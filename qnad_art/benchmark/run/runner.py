"""Run a suite: outstanding work is sent to workers, and results are written as they come.

Only this process writes results, and each is safely on disk before it takes the next. So a run that
is killed at any moment continues where it was.
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
"""How much of the expected time counts as confirmed: the first jobs are not like the others."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Args:
        jobs, of: how many cells and preparations are done, and how many there are.
        seconds_left: expected time that is left.
    """

    jobs: int
    of: int
    seconds_left: float

    def __str__(self) -> str:
        left = timedelta(seconds=round(self.seconds_left))
        return f"{self.jobs} of {self.of}, about {left} left"


Report = Callable[[str, Progress | None], object]
"""Takes a line on what happened and, once the run is under way, its progress."""


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
        folder: folder of the run, new or of the same suite; all workers must see it under this
            path.
        data_dir: folder of data sets, see :func:`qnad_art.datasets.dataset.load_dataset`.
        allow_code: whether code that the suite names may be run, here and by the workers, which
            must see it under the same path or name.
        only: pattern of the cells to measure now, ``None`` for all; see :meth:`Workload.matching`.
        engine: name of an engine, or a running engine.
        workers, address, gpu: settings of an engine given by name, see
            :func:`~qnad_art.benchmark.run.engines.choice.start_engine`.
        sinks: names of :mod:`qnad_art.benchmark.run.sinks` that also get the results. If one fails,
            ``report`` is told, and the run continues.
        revise: whether the folder may hold a run of other cells, see :meth:`Run.begin`.
        report: function that is called for everything that happens, which is also logged.

    Returns:
        The run: its results, and its failures if cells could not be measured.

    Raises:
        QnadError: the folder holds another suite or is in use, something that the suite names
            cannot be used, or the engine cannot continue.
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
        with _open(sinks, run, report) as outlet, ExitStack() as stack:
            for result in results:
                outlet.take(result)
            if not tasks:
                return run
            record = _Record(run, tasks, outlet)
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
    """Context with sinks that are closed when the run ends or is stopped."""
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
    """Jobs of missing preparations, then those of the tasks."""
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
    """Have ``engine`` carry out jobs; record, log and report every event."""
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
    """Writes the outcome of jobs into the run, and gives results to the sinks."""

    def __init__(self, run: Run, tasks: Sequence[Task], sinks: Sinks) -> None:
        self._run, self._sinks = run, sinks
        self._cells = {task.key: task.cell for task in tasks}
        # Other cells failed before and are not tried now.
        self._failures = [f for f in run.failures() if f.key not in self._cells]
        run.set_failures(self._failures)

    def take(self, event: Event) -> str:
        """Write an event; return a line that describes it."""
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
        key = event.job.key
        if key in self._cells:
            failure = Failure(key=key, cell=self._cells[key], reason=event.reason)
            self._failures.append(failure)
            self._run.set_failures(self._failures)
        return f"FAILED {event.job.label}: {event.reason}"


class _Clock:
    """Expected time, corrected by how long jobs really take."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._of = len(jobs)
        # It starts as if some work had taken as long as expected.
        trusted = max(_TRUSTED_SECONDS, _TRUSTED_SHARE * sum(job.cost for job in jobs))
        self._jobs, self._expected, self._taken = 0, trusted, trusted

    def take(self, event: Event) -> None:
        self._jobs += not isinstance(event, Said)
        if isinstance(event, Done):
            self._expected += event.job.cost
            self._taken += event.seconds

    def progress(self, expected_left: float) -> Progress:
        return Progress(self._jobs, self._of, expected_left * self._taken / self._expected)
