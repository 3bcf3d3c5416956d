"""The sinks of this package: files beside the report."""

from __future__ import annotations

from collections.abc import Sequence

from qnad_art.benchmark.report import export
from qnad_art.benchmark.run.sinks import Sink


class Parquet(Sink):
    """``results.parquet``, one row a cell; see :func:`~.export.to_frame`."""

    def close(self) -> Sequence[str]:
        """Write the file."""
        path = self.folder / "results.parquet"
        export.write_parquet(self.results, path)
        return [str(path)]


class Csv(Sink):
    """``results.csv``, one row a cell; see :func:`~.export.to_frame`."""

    def close(self) -> Sequence[str]:
        """Write the file."""
        path = self.folder / "results.csv"
        export.write_csv(self.results, path)
        return [str(path)]


class Latex(Sink):
    """``results.tex``: tables; see :func:`qnad_art.benchmark.report.export.latex`."""

    def close(self) -> Sequence[str]:
        """Write the file."""
        path = self.folder / "results.tex"
        export.write_latex(self.results, path)
        return [str(path)]
