"""Processes of this machine, to which the threads of a pool talk through pipes.

:class:`concurrent.futures.ProcessPoolExecutor` does not fit: when one of its processes is killed,
it ends all others, and one that is killed while it writes its answer blocks the pool permanently.
Here each process has two pipes of its own. Whichever side dies, at whatever moment, the other side
reads the end of the file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from qnad_art.benchmark.run.engines.engine import ONE_THREAD, Engine, Job, cores


@contextmanager
def start(workers: int | None, address: None, gpu: bool) -> Iterator[Engine]:
    """Context with worker processes of this machine, which end with it."""
    engine = LocalEngine(workers or cores(), gpu=gpu)
    try:
        yield engine
    finally:
        engine.close()


class WorkerDied(Exception):
    """The process that carried out a job is gone; the message says how it ended."""


class LocalEngine(Engine):
    """Worker processes that start at once, and are replaced when they die.

    Args:
        count: number of processes.
        gpu: whether they use the GPU.
    """

    def __init__(self, count: int, *, gpu: bool = False) -> None:
        awaited = f"Starting workers ({count}), which import PyTorch and ART …"
        super().__init__(awaited, WorkerDied, gpu=gpu)
        self._count, self._closed = count, False
        self._processes: dict[subprocess.Popen[str], IO[bytes]] = {}
        # Processes without a job; None stands for one that has yet to start.
        self._free: SimpleQueue[subprocess.Popen[str] | None] = SimpleQueue()
        for _ in range(count):
            self._free.put(self._started())
        self._threads = ThreadPoolExecutor(count, "worker")

    def submit(self, job: Job) -> Future[str]:
        """Have a job carried out by the next process that is free."""
        return self._threads.submit(self._ask, job.text)

    def workers(self) -> int:
        """Number of processes, including those that are starting."""
        return self._count

    def close(self) -> None:
        """Kill all processes, whatever they are doing."""
        self._closed = True
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in list(self._processes):
            self._end(process)

    def _ask(self, text: str) -> str:
        process, answer = self._free.get(), ""
        try:
            process = process or self._started()
            answer = _answer(process, text)
        finally:
            self._free.put(process if answer else None)
        if not answer:
            raise WorkerDied(self._end(process))
        return answer

    def _started(self) -> subprocess.Popen[str]:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process has ended)
        hidden = {} if self.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        path = os.pathsep.join(place for place in sys.path if place)
        process = subprocess.Popen(
            [sys.executable, "-m", "qnad_art.benchmark.run.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **ONE_THREAD, **hidden, "PYTHONPATH": path},
            encoding="utf-8",
            # Python looks for modules here first, and not in the folder that the run was called in.
            cwd=Path(__file__).parents[4],
            # Ctrl-C in a terminal reaches only the run, which decides when its workers end.
            start_new_session=True,
        )
        self._processes[process] = errors
        if self._closed:
            process.kill()
        return process

    def _end(self, process: subprocess.Popen[str]) -> str:
        """Wait until a process has ended, and say how."""
        process.communicate()
        status = process.returncode
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        with self._processes.pop(process) as errors:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([how, *last])


def _answer(process: subprocess.Popen[str], text: str) -> str:
    """The answer of a process to a job; empty if it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        print(text, file=process.stdin, flush=True)
        if (answer := process.stdout.readline()).endswith("\n"):
            return answer
    return ""
