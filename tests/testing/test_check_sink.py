"""The suite for sinks: the built-ins pass, and each fault is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnad_art.benchmark.report.sinks import Csv
from qnad_art.benchmark.run.sinks import Sink
from qnad_art.plugins.discovery import plugin_names
from qnad_art.testing import check_sink, checks_for


@pytest.mark.parametrize("sink", plugin_names("sink"))
@pytest.mark.parametrize(("name", "check"), checks_for("sink"))
def test_built_in_conforms(sink, name, check):
    check(sink)


class NotASink:
    def __init__(self, run, folder):
        pass

    def take(self, result):
        pass

    def close(self):
        return []


class NeedsItsFolder(Csv):
    def __init__(self, run, folder):
        super().__init__(run, folder)
        (folder / "log").write_text("begun")


class OneString(Csv):
    def close(self):
        return super().close()[0]


class SaysPaths(Csv):
    def close(self):
        super().close()
        return [self.folder / "results.csv"]


class SaysNothing(Csv):
    def close(self):
        super().close()


class WrongPlace(Csv):
    def close(self):
        super().close()
        return [str(self.folder / "result.csv")]


class NeedsResults(Csv):
    def close(self):
        best = max(result.accuracy.value for result in self.results)
        return [*super().close(), f"best {best}"]


class WritesBesideItself(Csv):
    def close(self):
        (self.run.folder / "results.csv").write_text("")
        return super().close()


class TakesResultsAway(Csv):
    def close(self):
        (self.run.folder / "results.jsonl").unlink(missing_ok=True)
        return super().close()


class WritesWhereItIs(Csv):
    def close(self):
        Path("mlruns").mkdir(exist_ok=True)
        Path("mlruns/meta.yaml").write_text("")
        return super().close()


class Appends(Sink):
    def close(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "keys.txt").open("a") as file:
            file.writelines(f"{result.key}\n" for result in self.results)
        return [str(self.folder / "keys.txt")]


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (NotASink, "is_a_sink", "type NotASink"),
        (NeedsItsFolder, "is_a_sink", "FileNotFoundError"),
        (OneString, "close_says_where_the_results_are", "results.csv' as the result of close"),
        (SaysPaths, "close_says_where_the_results_are", "Path("),
        (SaysNothing, "close_says_where_the_results_are", "None as the result of close"),
        (WrongPlace, "close_says_where_the_results_are", "result.csv"),
        (NeedsResults, "an_empty_run_is_no_error", "ValueError"),
        (WritesBesideItself, "writes_only_into_its_folder", "results.csv"),
        (TakesResultsAway, "writes_only_into_its_folder", "results.jsonl"),
        (WritesWhereItIs, "writes_only_into_its_folder", "./mlruns/meta.yaml"),
        (Appends, "results_that_come_again_change_nothing", "keys.txt"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_sink(faulty)
    message = str(caught.value)
    assert f"sink '{faulty.__name__}', check {check}: found" in message
    assert words in message
    assert "; expected" in message


def test_what_is_stored_elsewhere_is_compared_too():
    """A store that counts results, by their keys and not: only the first is idempotent."""

    def sink(store):
        class Elsewhere(Sink):
            def close(self):
                there = store.setdefault(self.folder, [])
                there += [result.key for result in self.results]
                return ["in memory"]

        return Elsewhere

    once: dict[Path, list[str]] = {}
    check_sink(sink(once), contents=lambda folder: sorted(set(once[folder])))
    twice: dict[Path, list[str]] = {}
    with pytest.raises(AssertionError, match="in two sessions"):
        check_sink(sink(twice), contents=lambda folder: sorted(twice[folder]))
