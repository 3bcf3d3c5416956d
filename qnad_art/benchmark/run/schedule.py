"""Which job is next: every job once, after the jobs that it needs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qnad_art.benchmark.run.wire import Message

DEATHS = 2
"""Worker processes that a job may cost before it counts as failed."""


@dataclass(frozen=True)
class Job:
    """What a worker does in one go.

    Args:
        key: its name.
        needs: keys of jobs that must be finished first; those that are no jobs of the schedule are
            taken as finished.
        message: what the worker is told.
        label: what people are told.
        cost: expected seconds.
    """

    key: str
    needs: tuple[str, ...]
    message: Message
    label: str
    cost: float = 1.0


class Schedule:
    """Jobs in the order of their urgency, for any number of threads that take them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = {job.key: job for job in jobs}
        self._running: dict[str, Job] = {}
        self._deaths: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def over(self) -> bool:
        """Whether every job is finished or failed."""
        with self._changed:
            return not self._waiting and not self._running

    @property
    def cost_left(self) -> float:
        """Expected seconds of all jobs that are not finished."""
        with self._changed:
            jobs = (*self._waiting.values(), *self._running.values())
            return sum(job.cost for job in jobs)

    def take(self) -> Job | None:
        """The next job, waiting for one to become ready; ``None`` when there will be no more."""
        with self._changed:
            while not self._closed and (self._waiting or self._running):
                for job in self._waiting.values():
                    if not any(n in self._waiting or n in self._running for n in job.needs):
                        self._running[job.key] = self._waiting.pop(job.key)
                        return job
                self._changed.wait()
        return None

    def finish(self, job: Job) -> None:
        """``job`` is done."""
        with self._changed:
            self._running.pop(job.key, None)
            self._changed.notify_all()

    def fail(self, job: Job) -> list[Job]:
        """``job`` cannot be done; the jobs that therefore cannot be done either."""
        with self._changed:
            self._running.pop(job.key, None)
            lost: list[Job] = []
            keys = {job.key}
            while more := [j for j in self._waiting.values() if keys & set(j.needs)]:
                lost += more
                keys = {j.key for j in more}
                for dependent in more:
                    del self._waiting[dependent.key]
            self._changed.notify_all()
            return lost

    def died(self, job: Job) -> bool:
        """The worker of ``job`` died; whether the job is tried again, after all others."""
        with self._changed:
            self._deaths[job.key] += 1
            again = self._deaths[job.key] < DEATHS
            if again:
                self._running.pop(job.key, None)
                self._waiting[job.key] = job
                self._changed.notify_all()
            return again

    def close(self) -> None:
        """No more jobs for anyone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
