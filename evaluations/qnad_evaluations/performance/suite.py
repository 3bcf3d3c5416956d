"""Jobs a second of a benchmark suite, on one, two and four workers and on Dask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from qnad_art.benchmark.run.runner import run_suite
from qnad_art.benchmark.suites.suite import Suite
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.products import seconds_of
from qnad_evaluations.performance.results import Case, Result, compared

PLACES = (("local", 1), ("local", 2), ("local", 4), ("dask", 2))
"""Engines and workers."""

SUITE = {
    "name": "bench",
    "data": {"name": "digits", "images": 200, "train_images": 400},
    "models": {"small": {"architecture": "lenet5", "epochs": 5}},
    "defences": {"none": "none", "inherent": {"name": "inherent", "shots": 1024}},
    "attacks": ["fgsm", {"name": "pgd", "max_iter": 10}],
    "eps": [0.05, 0.1, 0.2, 0.3],
    "rungs": ["transfer", "white-box"],
    "protocol": {"draws": 3, "audit_images": 10, "audit_steps": 5, "resamples": 200},
}
QUICK = {"attacks": ["fgsm"], "eps": [0.1], "rungs": ["transfer"], "audit": False}
"""What is less in a quick measurement."""


def measure(settings: Settings) -> Iterator[Result]:
    """The ratio is of the whole run's time, workers' start included, to that on one worker."""
    suite = Suite.model_validate(SUITE | (QUICK if settings.quick else {}))
    case: Case = {"budgets": len(suite.eps)}
    places = [place for place in PLACES if place[0] == "local" or find_spec("distributed")]
    series: dict[str, list[float]] = {_name(*place): [] for place in places}
    for _ in range(2):
        for engine, workers in places[:2] if settings.quick else places:
            with tempfile.TemporaryDirectory() as folder:

                def run(engine: str = engine, workers: int = workers, folder: str = folder) -> None:
                    run_suite(suite, Path(folder) / "run", engine=engine, workers=workers)

                series[_name(engine, workers)].append(seconds_of(run))
    yield from compared("suite", case, {name: s for name, s in series.items() if s})


def _name(engine: str, workers: int) -> str:
    return f"{engine}, {workers} worker{'s' if workers > 1 else ''}"
