"""Notes of workers on the jobs that they are carrying out: ``progress/KEY.jsonl`` in the run.

All workers see the run's folder, on every engine. So the run can tell how far a job is, and which
job had begun when its worker died.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from qnad_art.errors import QnadError


def begin(run: Path, key: str) -> None:
    """Note that a job begins; raises QnadError where the folder of the run is not seen."""
    try:
        # On a line of its own, even if a worker died while it wrote the last one.
        _add(run, key, "\n", begun=True)
    except OSError as error:
        raise QnadError(
            f"{socket.gethostname()} cannot write to {run} ({error}): all workers must see the "
            "folder of the run under the same path."
        ) from error


def say(run: Path, key: str, line: str) -> None:
    """Note a line on the progress of a job; losing it does no harm."""
    with suppress(OSError):
        _add(run, key, say=line)


def _add(run: Path, key: str, before: str = "", **note: Any) -> None:
    with (run / "progress" / f"{key}.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{before}{json.dumps(note)}\n")


class Notes:
    """The notes of a run as they come; a context, at whose end they are gone.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "progress"
        self._read: dict[str, int] = {}

    def __enter__(self) -> Notes:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def new(self) -> Iterator[tuple[str, str | None]]:
        """Keys of jobs with what their workers said; ``None`` says that a worker has begun."""
        for path in sorted(self._folder.glob("*.jsonl")):
            key = path.stem
            with path.open("rb") as file:
                file.seek(self._read.get(key, 0))
                lines = file.read().split(b"\n")
            # What follows the last line break is still being written.
            self._read[key] = self._read.get(key, 0) + sum(len(line) + 1 for line in lines[:-1])
            for line in lines[:-1]:
                with suppress(ValueError, AttributeError):
                    note = json.loads(line)
                    yield key, None if note.get("begun") else str(note["say"])

    def drop(self, key: str) -> None:
        """Forget a job."""
        (self._folder / f"{key}.jsonl").unlink(missing_ok=True)
        self._read.pop(key, None)
