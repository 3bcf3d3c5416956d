"""Jobs out to workers, outcomes back: the run's end of the connections."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

from qnad_art.benchmark.run.engines import Engine
from qnad_art.benchmark.run.schedule import Job, Schedule
from qnad_art.benchmark.run.wire import Wire
from qnad_art.errors import QnadError

PATIENCE_SECONDS = 300.0
"""A worker that gives no sign of life for so long is taken as dead."""
_RESTARTS = 3
_WAITING_SECONDS = 60
_GOODBYE_SECONDS = 1.0


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


@dataclass(frozen=True)
class _Died:
    job: Job


@dataclass(frozen=True)
class _LanesEnded:
    error: BaseException | None


Event = Done | Failed | Said


class Dispatch:
    """Carries out jobs on the workers of an engine; use as a context."""

    def __init__(self, jobs: Sequence[Job], engine: Engine) -> None:
        self.schedule = Schedule(jobs)
        self._engine = engine
        self._inbox: Queue[Event | _Died | _LanesEnded] = Queue()
        self._secret = secrets.token_hex(32)
        self._wires: list[Wire] = []
        self._listener = socket.create_server((engine.host, 0))
        self._lanes = threading.Thread(target=self._keep_lanes, daemon=True)

    def __enter__(self) -> Dispatch:
        threading.Thread(target=self._accept, daemon=True).start()
        self._lanes.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let all workers go, whatever they are doing."""
        self.schedule.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in list(self._wires):
            wire.close()
        self._lanes.join(_GOODBYE_SECONDS)

    def events(self) -> Iterator[Event]:
        """What happens, until every job is done or failed.

        Raises:
            QnadError: the engine has no workers any more.
        """
        restarts, waited = 0, 0
        while not self.schedule.over:
            try:
                event = self._inbox.get(timeout=1.0)
            except Empty:
                waited = 0 if self._wires else waited + 1
                if waited % _WAITING_SECONDS == _WAITING_SECONDS - 1:
                    yield Said("No worker is there; waiting for the engine to start some.")
                continue
            if isinstance(event, _LanesEnded):
                restarts += 1
                if restarts > _RESTARTS or isinstance(event.error, QnadError):
                    raise QnadError(f"No workers are left: {event.error}") from event.error
                yield Said(f"The engine's workers ended ({event.error}); starting new ones.")
                self._lanes = threading.Thread(target=self._keep_lanes, daemon=True)
                self._lanes.start()
            elif isinstance(event, _Died):
                yield from self._died(event.job)
            elif isinstance(event, Said):
                yield event
            else:
                restarts = 0
                yield from self._ended(event)

    def _ended(self, event: Done | Failed) -> Iterator[Event]:
        if isinstance(event, Done):
            self.schedule.finish(event.job)
            yield event
            return
        prevented = self.schedule.fail(event.job)
        yield event
        for job in prevented:
            yield Failed(job, f"it needs what failed: {event.job.label}: {event.reason}")

    def _died(self, job: Job) -> Iterator[Event]:
        if self.schedule.died(job):
            yield Said(f"A worker died at: {job.label}. It is tried again.")
        else:
            reason = "its worker process died twice (killed, crashed or out of memory)"
            yield from self._ended(Failed(job, reason))

    def _keep_lanes(self) -> None:
        error: BaseException | None = None
        try:
            self._engine.run(self._listener.getsockname()[1], self._secret)
        except BaseException as problem:
            error = problem
        self._inbox.put(_LanesEnded(error))

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        """Serve one worker for as long as there are jobs."""
        wire = Wire(connection)
        self._wires.append(wire)
        with suppress(OSError):
            if wire.trust(self._secret, patience=PATIENCE_SECONDS):
                while (job := self.schedule.take()) is not None:
                    if not self._carried_out(wire, job):
                        break
        self._wires.remove(wire)
        wire.close()

    def _carried_out(self, wire: Wire, job: Job) -> bool:
        """Have a job done; whether the worker is still there."""
        with suppress(OSError):
            wire.send(job.message)
            while (message := wire.receive()) is not None:
                if "say" in message:
                    self._inbox.put(Said(f"{job.label}: {message['say']}"))
                elif "done" in message:
                    self._inbox.put(Done(job, message["done"], float(message["seconds"])))
                    return True
                elif "failed" in message:
                    failed = Failed(job, str(message["failed"]), str(message.get("traceback", "")))
                    self._inbox.put(failed)
                    return True
        self._inbox.put(_Died(job))
        return False
