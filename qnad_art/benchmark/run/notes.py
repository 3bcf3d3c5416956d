"""Notes of workers on the jobs that they are carrying out: ``progress/KEY.jsonl`` in the run.

All workers see the run's folder, on every engine. From the notes, the run knows how far a job is,
and which jobs had begun when their workers died.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from qnad_art.errors import QnadError


def note(run: Path, key: str, line: str | None) -> None:
    """Add a line on the progress of a job; ``None`` says that it begins.

    Raises:
        QnadError: the folder of the run cannot be written to.
    """
    try:
        with (run / "progress" / f"{key}.jsonl").open("a", encoding="utf-8") as file:
            # The first line break ends a line that a worker was writing when it died.
            file.write(f"\n{json.dumps(line)}\n")
    except OSError as error:
        raise QnadError(
            f"{socket.gethostname()} cannot write to {run} ({error}): all workers must see the "
            "folder of the run under the same path."
        ) from error


class Notes:
    """The notes of a run as they come; a context, at whose end they are removed.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "progress"
        self._read: dict[Path, int] = {}

    def __enter__(self) -> Notes:
        self.__exit__()
        self._folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def new(self) -> Iterator[tuple[str, str | None]]:
        """Lines written since the last call, each with the key of its job."""
        for path in sorted(self._folder.glob("*.jsonl")):
            start = self._read.get(path, 0)
            data = path.read_bytes()[start:]
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = start + len(whole)
            for line in whole.splitlines():
                with suppress(ValueError, RecursionError):  # empty, or half a line
                    said = json.loads(line)
                    yield path.stem, None if said is None else str(said)

    def drop(self, key: str) -> None:
        """Forget a job that has ended."""
        path = self._folder / f"{key}.jsonl"
        path.unlink(missing_ok=True)
        self._read.pop(path, None)
