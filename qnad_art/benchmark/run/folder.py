"""The folder of a run: the suite, results as they come, preparations, and a log.

It holds ``suite.json`` (the suite, and the keys of its cells), ``results.jsonl`` (one result per
line), ``failures.json``, ``prepared/KEY/``, ``examples/KEY.npz`` and ``log.txt``; while the run is
measured also ``progress/`` (:mod:`qnad_art.benchmark.run.notes`).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from qnad_art.benchmark.records import Cell, Record, Result
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, QnadWarning, faults
from qnad_art.files.atomic import checksum, parse_json, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from qnad_art.benchmark.suites.suite import Suite

LARGEST_ARRAYS = 1 << 32
"""Bytes that the arrays of one file may take in memory."""
_CHECKSUM = "sha256"
# Everything that the readers of zip and npy files raise; RuntimeError includes NotImplementedError.
_DAMAGED = (
    *(BadZipFile, EOFError, LookupError, MemoryError, OSError, OverflowError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)


class _Entry(Record):
    key: str
    cell: Cell


class _Content(BaseModel):
    """Content of ``suite.json``; the suite itself is validated when it is used."""

    format: Literal[1]
    suite: dict[str, Any]
    cells: tuple[_Entry, ...]


class Failure(Record):
    """A cell that could not be measured, and why."""

    key: str
    cell: Cell
    reason: str


_FAILURES = TypeAdapter(tuple[Failure, ...])


class Run:
    """A run folder, opened by :meth:`open` or made by :meth:`begin`."""

    def __init__(self, folder: Path, content: _Content) -> None:
        self.folder = folder
        self._content = content
        self._results = folder / "results.jsonl"

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in ``folder``.

        Raises:
            ArtifactError: the folder holds no run, or one that is damaged or of another format.
        """
        folder = Path(folder)
        path = folder / "suite.json"
        if not path.is_file():
            raise ArtifactError(f"{folder} is not a run folder: `qnad evaluate SUITE` makes one.")
        content = _unsealed(read_json(path), str(path))
        try:
            return cls(folder, _Content.model_validate(content))
        except ValidationError as error:
            raise ArtifactError(f"{path}: {faults(error)}; run the suite again.") from None

    @classmethod
    def begin(
        cls, folder: str | Path, suite: Suite, cells: Mapping[str, Cell], *, revise: bool = False
    ) -> Run:
        """The run of ``suite`` in ``folder``, new or continued.

        Args:
            folder, suite: folder and suite of the run.
            cells: all cells of the suite, by key.
            revise: whether the folder may hold a run of other cells. Results of cells that are
                still in the suite are kept, the others are dropped.

        Raises:
            InvalidInputError: the folder holds something else, or a run of other cells.
        """
        folder = Path(folder)
        listed = tuple(_Entry(key=key, cell=cell) for key, cell in cells.items())
        content = _Content(format=1, suite=suite.model_dump(mode="json"), cells=listed)
        if (folder / "suite.json").is_file():
            run = cls.open(folder)
            if run.cells != dict(cells) and revise:
                run._keep(cells)
            elif run.cells != dict(cells):
                raise InvalidInputError(
                    f"{folder} holds a run of other cells (another suite, other data or weights, "
                    "or another version of qnad-art): give another --output, or --revise to keep "
                    "what fits and drop the rest."
                )
        _refuse_foreign(folder)
        write_json(folder / "suite.json", _sealed(content.model_dump(mode="json")))
        return cls(folder, content)

    @cached_property
    def suite(self) -> Suite:
        """The suite, all settings written out."""
        from qnad_art.benchmark.suites.suite import Suite

        try:
            # The suite is only read here; `run_suite` asks again whether code may be run.
            return Suite.model_validate(self._content.suite, context={"allow_code": True})
        except ValidationError as error:
            raise ArtifactError(f"{self.folder}/suite.json: {faults(error)}.") from None

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """All cells of the suite by key, measured or not, in its order."""
        return {entry.key: entry.cell for entry in self._content.cells}

    def results(self) -> list[Result]:
        """All results so far, in the order of the suite.

        Raises:
            ArtifactError: a line is not a result (half of a last line is left out).
        """
        found: dict[str, Result] = {}
        data = self._results.read_bytes() if self._results.is_file() else b""
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                content = parse_json(line, where := f"{self._results}, line {number}")
                result = Result.model_validate(_unsealed(content, where))
            except ValidationError as error:
                raise ArtifactError(f"{where} is not a result: {faults(error)}.") from None
            found.setdefault(result.key, result)
        order = {key: place for place, key in enumerate(self.cells)}
        return sorted(found.values(), key=lambda result: order.get(result.key, len(order)))

    def append(self, result: Result) -> None:
        """Add a result, safely on disk when this returns; for one process at a time."""
        line = _line(result)
        with self._results.open("ab", buffering=0) as file:
            written = file.write(line)
            os.fsync(file.fileno())
        if written != len(line):
            raise OSError(f"The disk of {self._results} is full: free some space and run again.")

    def repair(self) -> None:
        """Remove what a killed run left half: a last line (with a warning), preparations."""
        for unfinished in (self.folder / "prepared").glob(".*/"):
            shutil.rmtree(unfinished)
        if not self._results.is_file():
            return
        data = self._results.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole == len(data):
            return
        warnings.warn(
            f"{self._results} ends in half a line: its cell is measured again.",
            QnadWarning,
            stacklevel=2,
        )
        with self._results.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())

    def failures(self) -> tuple[Failure, ...]:
        """Cells that failed the last time; raises ArtifactError if the list is damaged."""
        path = self.folder / "failures.json"
        entries = read_json(path) if path.exists() else []
        try:
            return _FAILURES.validate_python(entries)
        except ValidationError as error:
            raise ArtifactError(f"{path}: {faults(error)}; remove it.") from None

    def set_failures(self, failures: Sequence[Failure]) -> None:
        """Replace the list of failed cells."""
        entries = [failure.model_dump(mode="json") for failure in failures]
        write_json(self.folder / "failures.json", entries)

    def prepared(self, key: str) -> Path:
        """Folder of a preparation; it exists if and only if it is complete."""
        return self.folder / "prepared" / key

    def examples(self, key: str) -> dict[str, np.ndarray] | None:
        """Arrays that were kept of a cell, ``None`` if there are none.

        Returns:
            ``x`` (N, …), ``y`` (N,), ``predicted`` (draws, N) and, for attack cells, ``x_adv``
            (N, …), on the rung ``seed-known`` (draws, N, …).
        """
        return read_arrays(self.folder / "examples" / f"{key}.npz")

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def _keep(self, cells: Mapping[str, Cell]) -> None:
        """Drop the results and failures of all cells that are not in ``cells``."""
        self.repair()
        kept = [result for result in self.results() if cells.get(result.key) == result.cell]
        write_bytes(self._results, b"".join(_line(result) for result in kept))
        self.set_failures([f for f in self.failures() if cells.get(f.key) == f.cell])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context in which no other process writes to a run folder; the lock ends with the process.

    Raises:
        QnadError: another process holds the lock, or the folder is not a run's.
    """
    from filelock import FileLock, Timeout

    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise QnadError(f"{folder} is in use by another `qnad evaluate`: wait for it.") from None
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and not (folder / "suite.json").is_file():
        own = {"lock", "prepared"}
        if any(entry.name not in own for entry in folder.iterdir()):
            raise InvalidInputError(f"{folder} is not a run folder and not empty: give another.")


def _line(result: Result) -> bytes:
    """A result as a line of ``results.jsonl``, with its checksum."""
    content = json.loads(result.model_dump_json())
    return json.dumps(_sealed(content), ensure_ascii=False).encode() + b"\n"


def _sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, _CHECKSUM: checksum(content)}


def _unsealed(content: Any, where: str) -> Any:
    """Content without its checksum, after a check; files of the first versions have none."""
    if not isinstance(content, dict) or _CHECKSUM not in content:
        return content
    rest = {name: value for name, value in content.items() if name != _CHECKSUM}
    if checksum(rest) != content[_CHECKSUM]:
        raise ArtifactError(f"{where} fails its checksum: damaged or edited.")
    return rest


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to ``path`` in one step."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of a file, ``None`` if there is no file; raises ArtifactError if it is damaged."""
    if not path.is_file():
        return None
    try:
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_ARRAYS:
            raise ValueError(f"arrays of {size:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise ArtifactError(f"{path} is damaged ({error}): remove it and run again.") from error
