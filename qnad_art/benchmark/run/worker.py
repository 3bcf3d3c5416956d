"""A worker of any engine: it takes a job as JSON and answers with JSON.

``python -m qnad_art.benchmark.run.worker`` is a worker process of the local engine: it reads one
job per line and answers each with a line, for as long as the process that started it lives.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from qnad_art.benchmark.run.notes import note
from qnad_art.environment import variables
from qnad_art.errors import QnadError, QnadWarning
from qnad_art.plugins.discovery import VARIABLE

if TYPE_CHECKING:
    from qnad_art.benchmark.run.work import Worker

_WORK = "qnad_art.benchmark.run.work"
_ALONE = threading.Lock()


def carry_out(text: str) -> str:
    """Carry out a job.

    Args:
        text: JSON of ``run`` (the run's folder), ``source``, ``work`` (see
            :mod:`qnad_art.benchmark.run.tasks`), ``plugins`` (the allow-list) and ``gpu``.

    Returns:
        JSON of ``done`` (the result of a cell, ``null`` for preparations) and ``seconds``, or of
        ``failed`` (the reason) and ``traceback``.
    """
    job = json.loads(text)
    hidden = {} if job["gpu"] else {"CUDA_VISIBLE_DEVICES": ""}
    # Seeds, plugins and warnings belong to the whole process: only one job runs at a time, even if
    # an engine calls from several threads.
    with _ALONE, variables({VARIABLE: job["plugins"], **hidden}):
        return json.dumps(_outcome(job))


def _outcome(job: dict[str, Any]) -> dict[str, Any]:
    run, key = Path(job["run"]), job["work"]["key"]

    def say(line: str) -> None:
        with suppress(QnadError):  # a lost line does no harm
            note(run, key, line)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", QnadWarning)
        try:
            note(run, key, None)
            worker, started = _worker(job["gpu"]), time.perf_counter()
            done = worker.carry_out(job, say)
            outcome: dict[str, Any] = {"done": done, "seconds": time.perf_counter() - started}
            json.dumps(outcome, allow_nan=False)
        except (Exception, SystemExit) as error:
            problem = f"{type(error).__name__}: {error}"
            outcome = {"failed": problem, "traceback": traceback.format_exc()}
    for text in sorted({str(warning.message) for warning in caught}):
        say(f"warning: {text}")
    return outcome


def prepare() -> None:
    """Begin to import what jobs need, PyTorch and ART, in the background."""
    threading.Thread(target=import_module, args=(_WORK,), daemon=True).start()


@cache
def _worker(gpu: bool) -> Worker:
    worker: Worker = import_module(_WORK).Worker(gpu=gpu)
    return worker


def main() -> None:
    """Answer the jobs that come on standard input."""
    jobs: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    prepare()
    while True:
        print(carry_out(jobs.get()), file=answers, flush=True)


def _read(jobs: SimpleQueue[str]) -> None:
    """Queue jobs; end this process, whatever it is doing, when their sender has ended."""
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
