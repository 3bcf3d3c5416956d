"""Ids of jobs that were sent, in memory and, if wanted, in a JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import read_json, write_json

FORMAT = 1


class Ledger:
    """Job id by key of the work. ``None`` as id: about to be sent, so it may have been.

    Args:
        path: file that several processes can share; ``None`` to keep ids in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._ids: dict[str, str | None] = {}
        if path is not None and path.exists():
            self._ids = _read(path)

    def __contains__(self, key: object) -> bool:
        return key in self._ids

    def __getitem__(self, key: str) -> str | None:
        return self._ids[key]

    def note(self, key: str, job_id: str | None) -> None:
        """Remember the id of what was sent, or ``None`` before sending it."""
        with self._shared():
            self._ids[key] = job_id

    def forget(self, key: str) -> None:
        """Work that has to be sent again."""
        with self._shared():
            self._ids.pop(key, None)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Change the ids of everybody who uses the file."""
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            if self.path.exists():
                self._ids = _read(self.path)
            yield
            write_json(self.path, {"format_version": FORMAT, "jobs": self._ids})


def _read(path: Path) -> dict[str, str | None]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format_version") != FORMAT:
        raise ArtifactError(f"{path} is no job file of format {FORMAT}; name another jobs_file.")
    ids: dict[str, str | None] = dict(content["jobs"])
    return ids
