"""The process in which tasks are carried out.

``python -m qnad_art.benchmark.run.worker HOST PORT BEFORE`` asks the run at that address for one
task after the other, and ends when the run does. BEFORE says how the worker before it ended, if it
died.
Being a process of its own, it takes nothing with it when it dies, and one thread a process makes
figures reproducible.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from queue import Queue

from qnad_art.benchmark.run.wire import Message, Wire
from qnad_art.errors import QnadWarning

CRASHED = 70
"""Exit status of a worker that was at work; any other says that it could not begin."""
BEAT_SECONDS = 20.0

CarryOut = Callable[[Message, Callable[[str], object]], Message | None]
"""Carries out a task, given what takes lines on progress, and returns what came of it."""


def main() -> None:
    """Connect to the run that the arguments name; the secret comes from standard input."""
    host, port, before = sys.argv[1:]
    secret = sys.stdin.readline().strip()
    # Ctrl-C in a terminal reaches every process; the run decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        wire = Wire(socket.create_connection((host, int(port)), timeout=20.0))
        wire.prove(secret)
        if before:
            wire.send({"say": f"(the worker before this one ended: {before})"})
    except OSError as error:
        sys.exit(f"{host}:{port} cannot be reached: {error}")
    tasks = listen(wire)
    # After the thread that notices the end of the run: this takes seconds.
    from qnad_art.benchmark.run.work import Worker

    try:
        serve(wire, tasks, Worker().carry_out)
    except BaseException:
        traceback.print_exc()
        os._exit(CRASHED)


def listen(wire: Wire) -> Queue[Message]:
    """What comes over ``wire``, from now on; the process ends when it is closed."""
    tasks: Queue[Message] = Queue()

    def read() -> None:
        while (message := wire.receive()) is not None:
            tasks.put(message)
        # Whatever is being computed, nobody waits for it any more.
        os._exit(0)

    def beat() -> None:
        with suppress(OSError):
            while True:
                wire.send({"beat": True})
                time.sleep(BEAT_SECONDS)

    for background in (read, beat):
        threading.Thread(target=background, daemon=True).start()
    return tasks


def serve(wire: Wire, tasks: Queue[Message], carry_out: CarryOut) -> None:
    """Carry out tasks for as long as the process lives."""
    while True:
        _answer(wire, tasks.get(), carry_out)


def _answer(wire: Wire, task: Message, carry_out: CarryOut) -> None:
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", QnadWarning)
        try:
            done = carry_out(task, lambda line: wire.send({"say": line}))
            answer: Message = {"done": done, "seconds": time.perf_counter() - started}
            json.dumps(answer, allow_nan=False)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            answer = {"failed": problem, "traceback": traceback.format_exc()}
    for text in sorted({str(warning.message) for warning in caught}):
        wire.send({"say": f"warning: {text}"})
    wire.send(answer)


if __name__ == "__main__":
    main()
