"""Conformance suite for sinks, run with made-up results of a small suite."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qnad_art.benchmark.records import Bits, Cell, Gate, Plan, Provenance, Result, content_address
from qnad_art.benchmark.run.folder import Run
from qnad_art.benchmark.run.sinks import Sink
from qnad_art.benchmark.statistics.intervals import accuracy_interval, wilson
from qnad_art.benchmark.suites.suite import Suite as BenchmarkSuite
from qnad_art.testing.checks import Suite, expect, expect_type, expect_unchanged, registered

IMAGES, DRAWS = 20, 3

Contents = Callable[[Path], Any]


def files_in(folder: Path) -> dict[str, bytes]:
    """Content of every file under ``folder``, by relative path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class _Case:
    """A sink's class, and a function that returns what a sink has written."""

    make: Callable[[Run, Path], Sink]
    contents: Contents

    @cached_property
    def results(self) -> list[Result]:
        return [_result(cell) for cell in _cells()]

    @contextmanager
    def run(self) -> Iterator[Run]:
        """A run without results, in an empty working directory."""
        parts = {"models": ["lenet5"], "defences": ["none", "inherent"], "attacks": ["fgsm"]}
        facts = {"name": "specimen", "data": "digits", "eps": [0.1, 0.2]}
        suite = BenchmarkSuite.model_validate({**facts, **parts})
        cells = {result.key: result.cell for result in self.results}
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = Path(folder) / "elsewhere"
            elsewhere.mkdir()
            os.chdir(elsewhere)
            try:
                yield Run.begin(Path(folder) / "run", suite, cells)
            finally:
                os.chdir(before)

    def write(self, run: Run, results: Sequence[Result]) -> Sequence[str]:
        """Pass results to a new sink, close it, and return the answer of ``close``."""
        sink = self.make(run, run.folder / "report")
        there = {result.key for result in run.results()}
        for result in results:
            if result.key not in there:
                run.append(result)
            sink.take(result)
        return sink.close()


def _cells() -> list[Cell]:
    conditions: list[dict[str, Any]] = [{"kind": "clean"}, {"kind": "audit"}]
    conditions += [
        {"kind": "attack", "attack": "fgsm", "eps": eps, "rung": rung}
        for eps in (0.1, 0.2)
        for rung in ("transfer", "white-box")
    ]
    common = {"model": "lenet5", "data": "digits", "device": "ibm_nairobi", "seed": 0}
    return [
        Cell(**common, defence=defence, **condition)
        for defence in ("none", "inherent")
        for condition in conditions
    ]


def _result(cell: Cell) -> Result:
    """Made-up accuracy that decreases with ε, with noise for the quantum defence."""
    quantum = cell.defence == "inherent"
    random = np.random.default_rng(0)
    share = 0.95 - 2 * (cell.eps or 0.0)
    correct = random.random((DRAWS if quantum else 1, IMAGES)) < share
    votes = correct.mean(0) > 0.5
    gate = Gate(name="unbounded ε", verdict="pass", demand="accuracy falls", figures={"at": 0.0})
    return Result(
        key=content_address(cell.model_dump()),
        cell=cell,
        accuracy=accuracy_interval(correct, resamples=100),
        majority=wilson(int(votes.sum()), IMAGES),
        every_draw=wilson(int(correct.all(0).sum()), IMAGES),
        images=IMAGES,
        draws=len(correct),
        correct=Bits.pack(correct),
        votes=Bits.pack(votes),
        norm="inf" if cell.eps is not None else None,
        single_step=cell.attack == "fgsm",
        gates=(gate,) if cell.kind == "audit" else (),
        perturbation={} if cell.eps is None else {"linf": cell.eps, "l2": 4 * cell.eps},
        seconds=0.5,
        provenance=Provenance(
            device_hash="d" * 64 if quantum else None,
            shots=1024 if quantum else None,
            plan=Plan(strategy="none", requested=0, achieved=0, injected=0) if quantum else None,
            data_hash="a" * 64,
            weights_hash="b" * 64,
            seed=cell.seed,
            versions={"python": "3"},
        ),
    )


def is_a_sink(case: _Case) -> None:
    """The sink is a subclass of Sink and accepts a folder that does not exist yet."""
    with case.run() as run:
        expect_type(case.make(run, run.folder / "report"), Sink)


def close_says_where_the_results_are(case: _Case) -> None:
    """``close`` returns a sequence of texts for people, in which all paths exist."""
    with case.run() as run:
        _expect_places(case.write(run, case.results), run.folder)


def _expect_places(places: Any, folder: Path) -> None:
    listed = isinstance(places, Sequence) and not isinstance(places, str | bytes)
    expect(
        listed and all(isinstance(place, str) and place for place in places),
        found=f"{places!r} as the result of close",
        expected="a list of strings, such as [str(path)]",
    )
    missing = [p for p in places if p.startswith(str(folder)) and not Path(p).exists()]
    expect(not missing, found=f"the paths {missing}", expected="paths of what was written")


def an_empty_run_is_no_error(case: _Case) -> None:
    """Closing works without results, because a run may end before its first result."""
    with case.run() as run:
        _expect_places(case.write(run, []), run.folder)


def writes_only_into_its_folder(case: _Case) -> None:
    """The sink writes neither elsewhere in the run's folder nor in the working directory."""
    with case.run() as run:
        for result in case.results:
            run.append(result)
        before = files_in(run.folder)
        case.write(run, case.results)
        after = files_in(run.folder)
        after |= {f"./{path}": content for path, content in files_in(Path.cwd()).items()}
        foreign = {path: content for path, content in after.items() if path[:7] != "report/"}
        expect_unchanged(before, foreign, by="the sink", expected="files only in its own folder")


def results_that_come_again_change_nothing(case: _Case) -> None:
    """Repeated results change nothing: a continued run passes old results to a new sink."""
    with case.run() as run:
        case.write(run, case.results)
        at_once = case.contents(run.folder / "report")
    with case.run() as run:
        case.write(run, case.results[: len(case.results) // 2])
        case.write(run, case.results)
        in_two = case.contents(run.folder / "report")
    difference = "different contents"
    if isinstance(at_once, dict) and isinstance(in_two, dict):
        keys = sorted(map(str, at_once.keys() | in_two.keys()))
        differing = [key for key in keys if at_once.get(key) != in_two.get(key)]
        difference = f"different contents of {', '.join(differing[:5])}"
    expect(
        at_once == in_two,
        found=f"{difference} after a run in two sessions",
        expected="the same as after one session: result.key identifies equal results",
    )


SUITE: Suite[_Case] = Suite("sink")


@SUITE.run_on
def check_sink(sink: str | Callable[[Run, Path], Sink], *, contents: Contents = files_in) -> _Case:
    """Check a sink of the benchmark on a made-up run.

    Args:
        sink: registered name, class, or ``factory(run, folder)``.
        contents: function that returns what a sink with this folder has stored, for comparison.
            The default returns the bytes of the files in the folder. A sink that stores data
            elsewhere must be read there, without dates.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    return _Case(registered("sink", sink), contents)
