"""Jobs out to an engine, each after those that it needs; what comes of them back as events."""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from qnad_art.benchmark.run.engines.engine import Engine, Job, WorkerDied
from qnad_art.benchmark.run.notes import Notes
from qnad_art.errors import QnadError

DEATHS = 3
"""Worker processes that may die at a job before it counts as failed."""
_LOSSES = 10
"""How often an engine may lose a job, whether or not it had begun."""
_LISTEN_SECONDS = 0.5
_COUNT_SECONDS = 5.0
_WAITING_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """A job's result, as the worker gave it, and the seconds that it took."""

    job: Job
    value: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Why a job failed; ``details`` for the log."""

    job: Job
    reason: str
    details: str = ""


@dataclass(frozen=True)
class Said:
    """A line on the progress of a job, or on workers."""

    line: str


Event = Done | Failed | Said


class Dispatch:
    """Has jobs carried out.

    Args:
        jobs: in the order of their urgency.
        engine: that carries them out.
        notes: of its workers.
    """

    def __init__(self, jobs: Sequence[Job], engine: Engine, notes: Notes) -> None:
        self._waiting = {job.key: job for job in jobs}
        self._submitted: dict[str, Job] = {}
        self._ended: SimpleQueue[tuple[Job, Future[str]]] = SimpleQueue()
        self._engine, self._notes = engine, notes
        self._begun, self._dead, self._lost = Counter[str](), Counter[str](), Counter[str]()
        self._crew = _Crew(engine)

    @property
    def workers(self) -> int:
        """How many workers there were lately, at least one."""
        return max(1, self._crew.workers)

    @property
    def cost_left(self) -> float:
        """Expected seconds of all jobs that are not finished."""
        return sum(job.cost for job in (*self._waiting.values(), *self._submitted.values()))

    def events(self) -> Iterator[Event]:
        """What happens, until every job is done or failed.

        Raises:
            QnadError: the engine cannot go on.
        """
        while self._waiting or self._submitted:
            self._submit()
            yield from self._crew.missing()
            try:
                job, answer = self._ended.get(timeout=_LISTEN_SECONDS)
            except Empty:
                yield from self._heard()
                continue
            yield from self._heard()
            self._notes.drop(job.key)
            del self._submitted[job.key]
            yield from self._outcome(job, answer)

    def _submit(self) -> None:
        """Give the engine all jobs that can be done now, as far as it takes them."""
        limit = self._engine.limit
        for job in list(self._waiting.values()):
            if limit is not None and len(self._submitted) >= limit:
                break
            if not any(key in self._waiting or key in self._submitted for key in job.needs):
                self._submitted[job.key] = self._waiting.pop(job.key)
                future = self._engine.submit(job)
                future.add_done_callback(lambda answer, job=job: self._ended.put((job, answer)))

    def _heard(self) -> Iterator[Said]:
        """What workers noted."""
        for key, line in self._notes.new():
            if (job := self._submitted.get(key)) is None:
                continue
            if line is not None:
                yield Said(f"{job.label}: {line}")
                continue
            if not self._begun:
                yield Said(f"The first worker is at work: {job.label}")
            if self._begun[key] > self._dead[key]:  # the engine itself tries again
                yield self._died(job)
            self._begun[key] += 1

    def _died(self, job: Job, how: str = "") -> Said:
        self._dead[job.key] = self._begun[job.key]
        return Said(f"A worker died{how and f' ({how})'} at: {job.label}. It is tried again.")

    def _outcome(self, job: Job, answer: Future[str]) -> Iterator[Event]:
        try:
            outcome = json.loads(answer.result())
        except WorkerDied as death:
            yield from self._lost_at(job, str(death))
        except QnadError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            yield from self._failed(Failed(job, reason, traceback.format_exc()))
        else:
            if "failed" in outcome:
                failed = Failed(job, str(outcome["failed"]), str(outcome["traceback"]))
                yield from self._failed(failed)
            else:
                yield Done(job, outcome["done"], float(outcome["seconds"]))

    def _lost_at(self, job: Job, how: str) -> Iterator[Event]:
        """Try a job again whose worker died, after all others, unless it is to blame."""
        self._lost[job.key] += 1
        deaths = self._begun[job.key]
        if deaths < DEATHS and self._lost[job.key] < _LOSSES:
            self._waiting[job.key] = job
            yield self._died(job, how)
        else:
            reason = f"its worker process died {max(deaths, self._lost[job.key])} times"
            yield from self._failed(Failed(job, f"{reason}, the last: {how}"))

    def _failed(self, failed: Failed) -> Iterator[Failed]:
        """A job failed, and with it those that need it."""
        yield failed
        reason = f"it needs what failed: {failed.job.label}: {failed.reason}"
        lost = {failed.job.key}
        while more := [job for job in self._waiting.values() if lost & set(job.needs)]:
            lost = {job.key for job in more}
            for job in more:
                del self._waiting[job.key]
                yield Failed(job, reason)


class _Crew:
    """How many workers there are, counted now and then."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.workers = engine.workers()
        self._counted = self._told = time.monotonic()

    def missing(self) -> Iterator[Said]:
        """A line now and then where there are no workers."""
        now = time.monotonic()
        if now - self._counted < _COUNT_SECONDS:
            return
        self.workers, self._counted = self._engine.workers(), now
        if self.workers:
            self._told = now
        elif now - self._told > _WAITING_SECONDS:
            self._told = now
            yield Said("No worker is there; waiting for the engine to start some.")
