"""The sink ``mlflow`` on a real store: what is there afterwards, and that it is there once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from typer.testing import CliRunner

from qnad_art.benchmark.records import Gate
from qnad_art.benchmark.run.folder import Run
from qnad_art.benchmark.run.sinks import Sinks
from qnad_art.benchmark.suites.suite import load_suite
from qnad_art.cli import app
from qnad_art.errors import PluginError
from qnad_art.placement.plan import CrosstalkPlan
from qnad_mlflow.content import result_metrics


def send(run, results=None):
    sinks = Sinks(["mlflow"], run, run.folder / "report")
    for result in run.results() if results is None else results:
        sinks.take(result)
    written = sinks.close()
    assert sinks.failures == []
    return written


def runs(client, experiment="qnad", view=ViewType.ACTIVE_ONLY):
    """Parents and children in the store."""
    number = client.get_experiment_by_name(experiment).experiment_id
    found = list(client.search_runs([number], run_view_type=view))
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return [run for run in found if run not in children], children


def assert_each_figure_once(client, run):
    parents, children = runs(client)
    assert len(parents) == 1
    assert sorted(child.data.tags["qnad.key"] for child in children) == sorted(run.cells)
    by_key = {result.key: result for result in run.results()}
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.info.status == "FINISHED"
        metrics = result_metrics(by_key[child.data.tags["qnad.key"]])
        for name in child.data.metrics:
            history = [
                (m.key, m.value, m.step) for m in client.get_metric_history(child.info.run_id, name)
            ]
            assert sorted(history) == sorted(m for m in metrics if m[0] == name)
        assert child.data.metrics.keys() == {name for name, _, _ in metrics}
    return parents[0], children


def files(client, run_id, folder=None):
    found = []
    for entry in client.list_artifacts(run_id, folder):
        found += files(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


@pytest.mark.parametrize("store", ["sqlite", "file"], indirect=True)
def test_everything_of_a_run_is_logged(run, store, tmp_path):
    (written,) = send(run)
    parent, children = assert_each_figure_once(store, run)
    assert parent.info.run_id in written
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "tiny"
    assert parent.data.params["data.name"] == "digits"
    assert parent.data.params["protocol.draws"] == "2"
    assert json.loads(parent.data.params["eps"]) == [0.1]
    for result in run.results():
        (child,) = [c for c in children if c.data.tags["qnad.key"] == result.key]
        assert child.data.metrics["accuracy"] == result.accuracy.value
        assert child.data.metrics["accuracy.low"] == result.accuracy.low
        assert child.data.params["defence"] == result.cell.defence
        assert child.data.tags["qnad.kind"] == result.cell.kind
        assert child.data.params.get("eps") == (None if result.cell.eps is None else "0.1")
        quantum = result.provenance.plan is not None
        assert child.data.params.get("plan.strategy") == ("uniform" if quantum else None)
        for gate in result.gates:
            assert gate.verdict in child.data.tags.values()
    there = files(store, parent.info.run_id)
    assert "suite.yaml" in there
    assert "report/report.html" in there
    assert any(path.startswith("report/figures/") and path.endswith(".png") for path in there)
    suite = store.download_artifacts(parent.info.run_id, "suite.yaml", str(tmp_path))
    assert load_suite(suite) == run.suite


@pytest.mark.usefixtures("no_figures")
def test_plans_can_be_loaded_and_read(run, store, tmp_path):
    send(run)
    (parent,), _ = runs(store)
    plans = [path for path in files(store, parent.info.run_id) if path.startswith("plans/")]
    assert [Path(path).suffix for path in plans] == [".json", ".safetensors"]
    brief, whole = (
        Path(store.download_artifacts(parent.info.run_id, path, str(tmp_path))) for path in plans
    )
    plan = CrosstalkPlan.load(whole)
    summary = json.loads(brief.read_text())
    assert summary["strategy"] == plan.strategy == "uniform"
    assert summary["injected"] == plan.injected > 0
    results = [result for result in run.results() if result.provenance.plan is not None]
    assert {result.provenance.plan.injected for result in results} == {plan.injected}


@pytest.mark.usefixtures("no_figures")
def test_results_are_there_as_they_come(run, store):
    sinks = Sinks(["mlflow"], run, run.folder / "report")
    for count, result in enumerate(run.results()[:3], start=1):
        sinks.take(result)
        (parent,), children = runs(store)
        assert len(children) == count
        assert parent.info.status == "RUNNING"
    sinks.close()
    (parent,), _ = runs(store)
    assert parent.info.status == "KILLED"


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("store", ["sqlite", "file"], indirect=True)
def test_a_run_that_goes_on_goes_on_in_the_same_place(run, store):
    half = len(run.results()) // 2
    send(run, run.results()[:half])
    (before,), some = runs(store)
    assert len(some) == half
    send(run)
    send(run)
    after, children = assert_each_figure_once(store, run)
    assert after.info.run_id == before.info.run_id
    assert {c.info.run_id for c in some} <= {c.info.run_id for c in children}


@pytest.mark.usefixtures("no_figures")
def test_a_cell_that_was_cut_off_is_logged_anew(run, store):
    """Killed between its creation and its figures, or between those and its end."""
    send(run, run.results()[:2])
    _, children = runs(store)
    for child in children:
        store.update_run(child.info.run_id, status="RUNNING")
    send(run)
    assert_each_figure_once(store, run)


@pytest.mark.usefixtures("no_figures")
def test_failed_gates_mark_every_cell_of_their_defence(run, store):
    fail = Gate(name="unbounded ε", verdict="fail", demand="accuracy falls to chance")
    results = [
        result.model_copy(update={"gates": (fail,)})
        if result.cell.kind == "audit" and result.cell.defence == "none"
        else result
        for result in run.results()
    ]
    send(run, results)
    _, children = runs(store)
    marked = {c.data.params["defence"] for c in children if c.data.tags.get("qnad.unreliable")}
    assert "none" in marked
    for child in children:
        if child.data.params["defence"] == "none":
            assert "unbounded ε" in child.data.tags["qnad.unreliable"]
    send(run)  # the gate holds after all
    _, children = runs(store)
    for child in children:
        if child.data.params["defence"] == "none":
            assert "unbounded ε" not in child.data.tags["qnad.unreliable"]


@pytest.mark.usefixtures("no_figures")
def test_another_folder_is_another_run(measured, run, store, tmp_path):
    shutil.copytree(measured, tmp_path / "other")
    send(run)
    send(Run.open(tmp_path / "other"))
    parents, children = runs(store)
    assert len(parents) == 2
    assert len(children) == 2 * len(run.cells)


def test_tokens_are_never_logged(run, store, monkeypatch):
    """Not even where they stand in the suite itself; every byte of the store is looked at."""
    token = "crosstalk + shots"  # the label of a defence, which is in everything that is logged
    monkeypatch.setenv("QISKIT_IBM_TOKEN", token)
    send(run)
    contents = b"".join(
        path.read_bytes()
        for path in run.folder.parent.joinpath("store").rglob("*")
        if path.is_file()
    )
    assert token.encode() not in contents
    assert b"[hidden]" in contents
    assert b"tiny" in contents


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "qnad"),
        ({"MLFLOW_EXPERIMENT_NAME": "theirs"}, "theirs"),
        ({"MLFLOW_EXPERIMENT_NAME": "theirs", "QNAD_MLFLOW_EXPERIMENT": "ours"}, "ours"),
    ],
)
def test_variables_name_the_experiment(variables, name, run, store, monkeypatch):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    send(run, run.results()[:1])
    assert len(runs(store, name)[1]) == 1


@pytest.mark.usefixtures("no_figures")
def test_an_experiment_by_number(run, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.create_experiment("numbered"))
    send(run, run.results()[:1])
    assert len(runs(store, "numbered")[1]) == 1


def test_a_deleted_experiment_is_an_error_before_anything_is_measured(run, store):
    store.delete_experiment(store.create_experiment("qnad"))
    with pytest.raises(Exception, match="is deleted: restore it"):
        Sinks(["mlflow"], run, run.folder / "report")


def test_a_store_that_cannot_be_used_is_an_error_that_names_the_plugin(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://nowhere")
    with pytest.raises(PluginError, match="sink 'mlflow' of qnad-mlflow"):
        Sinks(["mlflow"], run, run.folder / "report")


def command(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_in_two_goes_and_report(suite_file, run, store):
    """The whole way through the commands: a part, the rest, and a report of it all."""
    folder = run.folder  # networks and plans are there, results are not
    (folder / "results.jsonl").unlink()
    options = ("--output", folder, "--sink", "mlflow", "--workers", 1)
    command("evaluate", suite_file, "--only", "*none*fgsm*transfer*", *options)
    (before,), children = runs(store)
    assert len(children) == 1
    assert before.info.status == "KILLED"
    output = command("evaluate", suite_file, *options)
    assert before.info.run_id in output
    command("report", folder, "--format", "mlflow")
    after, _ = assert_each_figure_once(store, Run.open(folder))
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
