"""Sinks: where the results of a run go besides its own folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qnad_art.plugins.discovery import call_plugin, load_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qnad_art.benchmark.records import Result
    from qnad_art.benchmark.run.folder import Run


class Sink(ABC):
    """Takes results as they come; the base keeps them in :attr:`results`.

    A run that goes on gives its earlier results again: ``result.key`` says which are the same.

    Args:
        run: that is measured.
        folder: where files belong; it may not exist yet.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.results: list[Result] = []

    def take(self, result: Result) -> None:
        """Called once for every result."""
        self.results.append(result)

    @abstractmethod
    def close(self) -> Sequence[str]:
        """Called when the run has ended, however; where the results are now, for people."""


class Sinks:
    """Several sinks by name; one that fails is left out from then on and disturbs nothing.

    Raises:
        UnknownNameError: no such sink.
        PluginError: one cannot be imported or made.
    """

    def __init__(self, names: Iterable[str], run: Run, folder: Path) -> None:
        self._sinks: dict[str, Sink] = {}
        self.failures: list[str] = []
        for name in dict.fromkeys(names):
            self._sinks[name] = call_plugin("sink", name, lambda made: made(run, folder))

    def take(self, result: Result) -> None:
        """Give a result to all."""
        for name, sink in list(self._sinks.items()):
            with self._isolated(name):
                sink.take(result)

    def close(self) -> list[str]:
        """Close all; where the results are now."""
        written: list[str] = []
        for name, sink in list(self._sinks.items()):
            with self._isolated(name):
                written += sink.close()
        self._sinks.clear()
        return written

    @contextmanager
    def _isolated(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            del self._sinks[name]
            self.failures.append(f"sink {name}: {type(error).__name__}: {error}")


def check_sinks(names: Iterable[str]) -> None:
    """Raise UnknownNameError for a name that is no sink, PluginError for one of no use."""
    for name in names:
        load_plugin("sink", name)
