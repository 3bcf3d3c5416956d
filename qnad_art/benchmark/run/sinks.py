"""Sinks: places that get the results of a run in addition to its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qnad_art.plugins.discovery import call_plugin, load_plugin

if TYPE_CHECKING:
    from qnad_art.benchmark.records import Result
    from qnad_art.benchmark.run.folder import Run


class Sink(ABC):
    """Takes results as they come; this base class keeps them in :attr:`results`.

    A run that continues gives its earlier results again: ``result.key`` identifies them.

    Args:
        run: the run that is measured.
        folder: folder for the sink's files; it may not exist yet.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.results: list[Result] = []

    def take(self, result: Result) -> None:
        """Take a result; called once for each."""
        self.results.append(result)

    @abstractmethod
    def close(self) -> Sequence[str]:
        """Finish, when the run has ended in whatever way; say where the results are now."""


class Sinks:
    """Several sinks by name; one that fails is left out from then on, and the run continues.

    Raises:
        UnknownNameError: there is no such sink.
        PluginError: a sink cannot be imported or made.
    """

    def __init__(self, names: Iterable[str], run: Run, folder: Path) -> None:
        self.failures: list[str] = []
        self._sinks: dict[str, Sink] = {
            name: call_plugin("sink", name, lambda made: made(run, folder))
            for name in dict.fromkeys(names)
        }

    def take(self, result: Result) -> None:
        """Give a result to every sink."""
        for name, sink in list(self._sinks.items()):
            with self._isolated(name):
                sink.take(result)

    def close(self) -> list[str]:
        """Close every sink; return where the results are now."""
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
    """Raise UnknownNameError for an unknown sink, PluginError for one that cannot be imported."""
    for name in names:
        load_plugin("sink", name)
