"""The sinks of this package, which write files next to the report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from qnad_art.benchmark.report.export import latex, to_frame
from qnad_art.benchmark.run.sinks import Sink
from qnad_art.files.atomic import write_bytes


class _File(Sink):
    """A sink that writes one file when the run has ended."""

    name: ClassVar[str]

    @abstractmethod
    def _content(self) -> bytes: ...

    def close(self) -> Sequence[str]:
        """Write the file."""
        path = self.folder / self.name
        write_bytes(path, self._content())
        return [str(path)]


class Parquet(_File):
    """``results.parquet`` with one row per cell; see :func:`~.export.to_frame`."""

    name = "results.parquet"

    def _content(self) -> bytes:
        content: bytes = to_frame(self.results).to_parquet(index=False, engine="pyarrow")
        return content


class Csv(_File):
    """``results.csv`` with one row per cell, in UTF-8; see :func:`~.export.to_frame`.

    Floats are written with all their digits, so that they read back equal.
    """

    name = "results.csv"

    def _content(self) -> bytes:
        text: str = to_frame(self.results).to_csv(index=False, lineterminator="\n")
        return text.encode()


class Latex(_File):
    """``results.tex`` with tables; see :func:`~.export.latex`."""

    name = "results.tex"

    def _content(self) -> bytes:
        return latex(self.results).encode()
