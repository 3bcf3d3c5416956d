"""A run: the work that is still to do is sent to workers, and results are written as they come.

This process alone writes results, each one safely on disk before the next is looked at. So a run
that is killed at any moment goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from qnad_art.benchmark.dispatch import Dispatch, Done, Failed, Said
from qnad_art.benchmark.engines import Engine
from qnad_art.benchmark.records import Result
from qnad_art.benchmark.schedule import Job
from qnad_art.benchmark.store import Failure, Run
from qnad_art.benchmark.tasks import Task
from qnad_art.benchmark.workload import Workload


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


_TRUSTED_SECONDS = 10.0

Report = Callable[[str, Progress], object]
"""Takes a line on what happened, and where the run is now."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: cells measured in all, and those that failed."""

    measured: int
    failures: tuple[Failure, ...]


def open_tasks(run: Run, workload: Workload) -> list[Task]:
    """Cells that have no result yet."""
    done = {result.key for result in run.results()}
    return [task for task in workload.tasks if task.key not in done]


def execute(
    run: Run,
    workload: Workload,
    tasks: list[Task],
    engine: Engine,
    *,
    costs: Mapping[str, float],
    report: Report,
) -> Outcome:
    """Measure ``tasks`` and add their results to the run.

    Args:
        run: its folder must be visible to all workers under the same path.
        workload: of the run's suite.
        tasks: those of it that are to be measured now.
        engine: where the workers are.
        costs: expected seconds of all work, by key.
        report: called for everything that happens; the log gets it too.

    Raises:
        QnadError: there are no workers.
    """
    preparations = workload.preparations_for(tasks)
    works = [*(work for work in preparations if not run.prepared(work.key).is_dir()), *tasks]
    jobs = [_job(run, workload, work, costs.get(work.key, 1.0)) for work in works]
    tried = {task.key for task in tasks}
    failures = [failure for failure in run.failures() if failure.key not in tried]
    run.set_failures(failures)
    clock = _Clock(len(jobs), engine.workers)
    cells = {task.key: task.cell for task in tasks}
    measured = 0
    with Dispatch(jobs, engine) as dispatch:
        for event in dispatch.events():
            line = event.line if isinstance(event, Said) else event.job.label
            if isinstance(event, Done):
                clock.count(event.job.cost, event.seconds)
                if event.value is not None:
                    result = Result.model_validate(event.value)
                    run.append(result)
                    measured += 1
                    line += f": {_figure(result)}"
                line += f" ({event.seconds:.1f} s)"
            elif isinstance(event, Failed):
                clock.count(event.job.cost, None)
                line = f"FAILED {line}: {event.reason}"
                if event.job.key in cells:
                    cell = cells[event.job.key]
                    reason = event.reason
                    failures.append(Failure(key=event.job.key, cell=cell, reason=reason))
                    run.set_failures(failures)
            now = clock.progress(dispatch.schedule.cost_left)
            run.log(f"[{now}] {line}")
            if isinstance(event, Failed) and event.details:
                run.log(event.details)
            report(line, now)
    return Outcome(measured, tuple(failures))


def _job(run: Run, workload: Workload, work: Any, cost: float) -> Job:
    message = {
        "run": str(run.folder.resolve()),
        "source": workload.source.model_dump(mode="json"),
        "work": work.model_dump(mode="json"),
    }
    return Job(work.key, work.needs, message, str(work), cost)


def _figure(result: Result) -> str:
    accuracy = result.accuracy
    return (
        f"accuracy {100 * accuracy.value:.1f} % "
        f"[{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
    )


class _Clock:
    """Expected time, corrected by how long things really take."""

    def __init__(self, jobs: int, workers: int) -> None:
        self._of, self._workers = jobs, workers
        # As if some work had taken what was expected: the first jobs say little.
        self._jobs, self._expected, self._taken = 0, _TRUSTED_SECONDS, _TRUSTED_SECONDS

    def count(self, expected: float, taken: float | None) -> None:
        self._jobs += 1
        if taken is not None:
            self._expected += expected
            self._taken += taken

    def progress(self, cost_left: float) -> Progress:
        left = cost_left * self._taken / self._expected / self._workers
        return Progress(self._jobs, self._of, left)
