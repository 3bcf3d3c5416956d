"""Send jobs to an engine, each after those that it needs, and report the outcome as events."""

from __future__ import annotations

import json
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter
from queue import Empty, SimpleQueue
from typing import Any

from qnad_art.benchmark.run.engines.engine import Engine, Job, Submitted
from qnad_art.benchmark.run.notes import Notes
from qnad_art.errors import QnadError

DEATHS = 3
"""Number of workers that die at a job before it counts as failed."""
_LOSSES = 10
"""Number of times that an engine loses a job, even before it begins, until it counts as failed."""
_LISTEN_SECONDS = 0.5
_PATIENCE, _REMINDER = 10, 120
"""Rounds of listening without a worker until the user is told, and is told again."""


@dataclass(frozen=True)
class Done:
    """Result of a job, as the worker gave it, and the seconds that it took."""

    job: Job
    value: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Why a job failed; ``details`` are for the log."""

    job: Job
    reason: str
    details: str = ""


@dataclass(frozen=True)
class Said:
    """A line on the progress of a job, or on workers."""

    line: str


Event = Done | Failed | Said


class Dispatch:
    """Has an engine carry out jobs.

    Args:
        jobs: the jobs, most urgent first, each after those that it needs.
        engine: the engine.
        notes: notes of the engine's workers.
    """

    def __init__(self, jobs: Sequence[Job], engine: Engine, notes: Notes) -> None:
        self._left = {job.key: job for job in jobs}
        self._order = TopologicalSorter(
            {job.key: [key for key in job.needs if key in self._left] for job in jobs}
        )
        self._ready: deque[str] = deque()
        # Futures are kept because an engine may cancel a job without a reference to its future.
        self._submitted: dict[str, Submitted] = {}
        self._ended: SimpleQueue[str] = SimpleQueue()
        self._engine, self._notes = engine, notes
        self._begun: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self.workers = engine.workers()
        self._alone = 0

    @property
    def seconds_left(self) -> float:
        """Expected seconds until all jobs are done."""
        return sum(job.cost for job in self._left.values()) / max(1, self.workers)

    def events(self) -> Iterator[Event]:
        """Events, until every job is done or failed.

        Raises:
            QnadError: the engine cannot continue.
        """
        self._order.prepare()
        while self._submit():
            try:
                key = self._ended.get(timeout=_LISTEN_SECONDS)
            except Empty:
                yield from (*self._heard(), *self._missed())
                continue
            yield from self._heard()
            self._notes.drop(key)
            yield from self._outcome(self._left[key], self._submitted.pop(key))

    def _submit(self) -> bool:
        """Give the engine the jobs that can be done now; return whether it has any."""
        self._ready += self._order.get_ready()
        limit = self._engine.limit or len(self._left)
        while self._ready and len(self._submitted) < limit:
            key = self._ready.popleft()
            self._submitted[key] = task = self._engine.submit(self._left[key])
            task.add_done_callback(partial(self._has_ended, key))
        return bool(self._submitted)

    def _has_ended(self, key: str, _: object) -> None:
        self._ended.put(key)

    def _heard(self) -> Iterator[Said]:
        """Lines from the notes of workers."""
        for key, line in self._notes.new():
            if (job := self._left.get(key)) is None:
                continue
            if line is not None:
                yield Said(f"{job.label}: {line}")
                continue
            if not self._begun:
                yield Said(f"The first worker is at work: {job.label}")
            elif self._begun[key]:
                yield Said(f"Started again because its worker died: {job.label}")
            self._begun[key] += 1

    def _missed(self) -> Iterator[Said]:
        """A line from time to time while there are no workers."""
        self.workers = self._engine.workers()
        self._alone = 0 if self.workers else self._alone + 1
        if self._alone % _REMINDER == _PATIENCE:
            yield Said("There are no workers; waiting for the engine to start some.")

    def _outcome(self, job: Job, task: Submitted) -> Iterator[Event]:
        try:
            outcome = json.loads(task.result())
        except self._engine.died as death:
            yield from self._died(job, str(death).partition("\n")[0])
        except (CancelledError, QnadError) as error:
            raise QnadError(f"The engine cannot continue: {error}") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            yield from self._failed(job, reason, traceback.format_exc())
        else:
            if "failed" in outcome:
                yield from self._failed(job, outcome["failed"], outcome["traceback"])
                return
            del self._left[job.key]
            self._order.done(job.key)
            yield Done(job, outcome["done"], outcome["seconds"])

    def _died(self, job: Job, how: str) -> Iterator[Event]:
        """Try a job again after all that are ready, unless it has failed too often."""
        self._lost[job.key] += 1
        if self._begun[job.key] < DEATHS and self._lost[job.key] < _LOSSES:
            self._ready.append(job.key)
            yield Said(f"A worker died ({how}): {job.label}")
        else:
            yield from self._failed(job, f"its workers died repeatedly, the last one by: {how}")

    def _failed(self, job: Job, reason: str, details: str = "") -> Iterator[Failed]:
        """Report that a job failed, and with it all jobs that need it."""
        del self._left[job.key]
        yield Failed(job, reason, details)
        lost = {job.key}
        for other in list(self._left.values()):
            if not lost.isdisjoint(other.needs):
                lost.add(other.key)
                del self._left[other.key]
                yield Failed(other, f"it needs {job.label}, which failed: {reason}")
