"""One tiny run of the benchmark, measured once; a local store of MLflow for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qnad_art.benchmark.run.folder import Run
from qnad_art.benchmark.run.runner import run_suite
from qnad_art.benchmark.suites.suite import load_suite

SUITE = """
name: tiny
data: {name: digits, images: 20, train_images: 300}
models: {small: {architecture: lenet5, epochs: 3}}
defences: {none: none, "crosstalk + shots": {name: qnad-uniform, fraction: 0.1, shots: 64}}
attacks: [fgsm, {name: pgd, max_iter: 2}]
eps: [0.1]
rungs: [transfer, adaptive]
protocol: {draws: 2, selection_draws: 2, eot_samples: [1, 2], audit_images: 8, audit_steps: 4,
  resamples: 100}
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="session")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def measured(suite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    run = run_suite(load_suite(suite_file), folder, workers=1)
    assert not run.failures()
    return folder


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Run:
    """A copy of the measured run."""
    shutil.copytree(measured, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MlflowClient:
    """A real tracking store in a folder: a database, or files (MLflow 3 must be asked for them)."""
    folder = tmp_path / "store"
    folder.mkdir()
    monkeypatch.chdir(folder)
    kind = getattr(request, "param", "sqlite")
    uri = f"sqlite:///{folder}/mlflow.db" if kind == "sqlite" else folder.as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("QNAD_MLFLOW_EXPERIMENT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return MlflowClient(uri)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; where they are not the point, an empty page stands for them."""

    def write(source: object, folder: Path, formats: object) -> None:
        folder.mkdir()
        (folder / "report.html").write_text("")

    monkeypatch.setattr("qnad_art.benchmark.report.write_source", write)
