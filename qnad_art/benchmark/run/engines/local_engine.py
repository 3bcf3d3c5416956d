"""Processes of this machine: each thread of a pool feeds and hears one through pipes.

:class:`concurrent.futures.ProcessPoolExecutor` does not fit: when one of its processes is killed,
it ends all others too, and one that is killed while it writes its answer blocks the pool for good.
Here each process has two pipes that nobody else holds. So whoever dies, at whatever moment, the
other side reads the end of the file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from qnad_art.benchmark.run.engines.engine import ONE_THREAD, Engine, Job, WorkerDied, cores
from qnad_art.benchmark.run.worker import READY
from qnad_art.errors import QnadError

_STARTS = 3


@contextmanager
def start(workers: int | None, address: None, gpu: bool) -> Iterator[Engine]:
    """Context with worker processes of this machine, which end with it."""
    engine = LocalEngine(workers or cores(), gpu=gpu)
    try:
        yield engine
    finally:
        engine.close()


class LocalEngine(Engine):
    """Worker processes that start at once, and are replaced when they die.

    Args:
        count: how many.
        gpu: whether they use the GPU.
    """

    def __init__(self, count: int, *, gpu: bool = False) -> None:
        super().__init__(f"Starting workers ({count}), which import PyTorch and ART …", gpu=gpu)
        self._count = count
        self._own = threading.local()
        self._living: set[_Process] = set()
        self._changing = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(count, "worker")
        for _ in range(count):
            self._threads.submit(self._process)

    def submit(self, job: Job) -> Future[str]:
        """Have a job carried out by the next process that is free."""
        return self._threads.submit(self._carried_out, job.text)

    def workers(self) -> int:
        """How many processes there are, counting those that start."""
        return self._count

    def close(self) -> None:
        """Kill all processes, whatever they are doing."""
        with self._changing:
            self._closed = True
            for process in self._living:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._living:
            process.end()

    def _carried_out(self, text: str) -> str:
        process = self._process()
        answer = process.ask(text)
        if answer is None:
            raise WorkerDied(self._end(process))
        return answer

    def _process(self) -> _Process:
        """The process of this thread, ready for a job."""
        if (process := getattr(self._own, "process", None)) is not None:
            return process
        for _ in range(_STARTS):
            process = self._started()
            if process.is_ready():
                self._own.process = process
                return process
            ended = self._end(process)
        raise QnadError(f"A worker process cannot start: {ended}")

    def _started(self) -> _Process:
        with self._changing:
            if self._closed:
                raise WorkerDied("the run is over")
            process = _Process(self.gpu)
            self._living.add(process)
        return process

    def _end(self, process: _Process) -> str:
        with self._changing:
            self._living.discard(process)
        self._own.process = None
        return process.end()


class _Process:
    """A process of :mod:`qnad_art.benchmark.run.worker`."""

    def __init__(self, gpu: bool) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end)
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "qnad_art.benchmark.run.worker", *["--gpu"] * gpu],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(gpu),
            encoding="utf-8",
            # Python looks there first: never for modules of the folder that it was called in.
            cwd=Path(__file__).parents[4],
            # Ctrl-C in a terminal reaches the run alone, which decides when its workers end.
            start_new_session=True,
        )

    def is_ready(self) -> bool:
        """Whether it has started; waits for that."""
        return self._line() == READY

    def ask(self, text: str) -> str | None:
        """The answer to a job; ``None`` if the process died."""
        assert self._popen.stdin is not None
        with suppress(OSError):
            print(text, file=self._popen.stdin, flush=True)
            return self._line()
        return None

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._popen.kill()

    def end(self) -> str:
        """How it ended; waits for that."""
        self._popen.communicate()
        status = self._popen.returncode
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        with self._errors:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([how, *last])

    def _line(self) -> str | None:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        return line[:-1] if line.endswith("\n") else None


def _environment(gpu: bool) -> dict[str, str]:
    """As here, but for one thread and without a GPU, so that figures are the same everywhere."""
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, **ONE_THREAD, **hidden, "PYTHONPATH": paths}
