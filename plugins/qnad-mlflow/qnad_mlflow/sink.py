"""The sink ``mlflow``: a run folder is an MLflow run, and each of its cells a child of it."""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from qnad_art.benchmark.audit.audit import audit_results, unreliable
from qnad_art.benchmark.run.sinks import Sink
from qnad_art.errors import InvalidInputError
from qnad_art.files.atomic import read_json, write_json
from qnad_art.placement.plan import CrosstalkPlan
from qnad_mlflow import content
from qnad_mlflow.secrets import hide, hide_in

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.entities import Run as MlflowRun

    from qnad_art.benchmark.records import Result
    from qnad_art.benchmark.run.folder import Run

EXPERIMENT = "QNAD_MLFLOW_EXPERIMENT"
"""Variable with the experiment's name; else MLflow's own count, else it is ``qnad``."""

_OWN = "qnad.run"
_UNRELIABLE = "qnad.unreliable"
_PARENT = "mlflow.parentRunId"
_PAGE = 1000


class Mlflow(Sink):
    """Logs a run to the store that MLflow's environment variables name.

    Of the suite: parameters and ``suite.yaml``. Of every cell, as it comes: a child run with
    parameters, metrics and tags. At the end: the report, the crosstalk plans, and which cells are
    unreliable. A run that goes on, or that is reported again, goes on in its MLflow run, and what
    is logged there is not logged again.

    Raises:
        InvalidInputError: the experiment is deleted or does not exist.
        mlflow.exceptions.MlflowException: the store cannot be reached.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        super().__init__(run, folder)
        self._client = MlflowClient()
        self._experiment = _experiment(self._client)
        self._parent = self._continued() or self._begun()
        self._children = self._logged()

    def take(self, result: Result) -> None:
        """Log a result, unless it is there."""
        super().take(result)
        if result.key not in self._children:
            self._children[result.key] = self._log(result)

    def close(self) -> Sequence[str]:
        """Log what follows from all results; where the run is."""
        self._mark_unreliable()
        with tempfile.TemporaryDirectory() as name:
            self._write_report(Path(name) / "report")
            self._write_plans(Path(name) / "plans")
            self._client.log_artifacts(self._parent, name)
        self._client.set_terminated(self._parent, status=self._status())
        place = hide_in(self._client.tracking_uri)
        return [f"MLflow run {self._parent}, experiment {self._experiment.name!r}, at {place}"]

    def _continued(self) -> str | None:
        """The MLflow run of this folder, if there is one."""
        found = next(self._search(_OWN, self._identity), None)
        if found is None:
            return None
        self._client.update_run(found.info.run_id, status="RUNNING")
        return str(found.info.run_id)

    def _begun(self) -> str:
        suite = self.run.suite
        started = self._client.create_run(
            self._experiment.experiment_id,
            run_name=suite.name,
            tags={_OWN: self._identity, "qnad.cells": str(len(self.run.cells))},
        )
        parent = str(started.info.run_id)
        parameters = content.suite_parameters(suite)
        self._client.log_batch(parent, params=[Param(*item) for item in parameters.items()])
        self._client.log_text(parent, content.suite_yaml(suite), "suite.yaml")
        return parent

    @property
    def _identity(self) -> str:
        """Of the run folder, wherever it is moved, and whatever store it is logged to."""
        path = self.run.folder / "report" / "mlflow.json"
        if not path.exists():
            write_json(path, {"run": uuid.uuid4().hex})
        return str(read_json(path)["run"])

    def _logged(self) -> dict[str, MlflowRun]:
        """The finished children by the key of their cell; what was cut off is removed."""
        found: dict[str, MlflowRun] = {}
        for child in list(self._search(_PARENT, self._parent)):
            if child.info.status == "FINISHED":
                found[child.data.tags["qnad.key"]] = child
            else:
                self._client.delete_run(child.info.run_id)
        return found

    def _log(self, result: Result) -> MlflowRun:
        child = self._client.create_run(
            self._experiment.experiment_id,
            run_name=hide_in(str(result.cell)),
            tags={_PARENT: self._parent, **content.result_tags(result)},
        )
        now = int(1000 * time.time())
        parameters = content.result_parameters(result)
        self._client.log_batch(
            child.info.run_id,
            metrics=[
                Metric(name, x, now, step) for name, x, step in content.result_metrics(result)
            ],
            params=[Param(*item) for item in parameters.items()],
        )
        self._client.set_terminated(child.info.run_id)
        return child

    def _mark_unreliable(self) -> None:
        """Name the failed gates of its defence on every cell; one may fail, or not, later on."""
        gates = audit_results(self.results)
        for result in self.results:
            cell = result.cell
            where = (cell.model, cell.data, cell.device, cell.defence, cell.seed)
            failed = "; ".join(unreliable(gates.get(where, ())))
            child = self._children[result.key]
            if failed != child.data.tags.get(_UNRELIABLE, ""):
                self._client.set_tag(child.info.run_id, _UNRELIABLE, failed)

    def _write_report(self, folder: Path) -> None:
        if not self.results:
            return
        from qnad_art.benchmark.report import write_source
        from qnad_art.benchmark.report.source import read_source

        suite = json.dumps(hide(self.run.suite.model_dump(mode="json")), indent=2)
        write_source(replace(read_source(self.run), suite=suite), folder, ("html", "png"))
        page = folder / "report.html"
        page.write_text(hide_in(page.read_text(encoding="utf-8")), encoding="utf-8")

    def _write_plans(self, folder: Path) -> None:
        for path in sorted(self.run.folder.glob("prepared/*/plan.safetensors")):
            plan, name = CrosstalkPlan.load(path), path.parent.name
            write_json(folder / f"{plan.strategy}-{name}.json", content.plan_summary(plan))
            clean = replace(plan, settings=hide(dict(plan.settings)))
            clean.save(folder / f"{plan.strategy}-{name}.safetensors")

    def _status(self) -> str:
        """Killed runs can go on; failed ones have cells that could not be measured."""
        if len(self.results) >= len(self.run.cells):
            return "FINISHED"
        return "FAILED" if self.run.failures() else "KILLED"

    def _search(self, tag: str, value: str) -> Iterator[MlflowRun]:
        """Runs of the experiment with a tag, those in the bin left out."""
        token: Any = None
        while True:
            page = self._client.search_runs(
                [self._experiment.experiment_id],
                f"tags.`{tag}` = '{value}'",
                max_results=_PAGE,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return


def _experiment(client: MlflowClient, environment: Mapping[str, str] = os.environ) -> Experiment:
    """The experiment that the environment names, made if it is not there."""
    name = environment.get(EXPERIMENT) or environment.get("MLFLOW_EXPERIMENT_NAME")
    number = environment.get("MLFLOW_EXPERIMENT_ID")
    if name is None and number is not None:
        found = client.get_experiment(number)
    else:
        name = name or "qnad"
        found = client.get_experiment_by_name(name)
        if found is None:
            found = client.get_experiment(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise InvalidInputError(
            f"MLflow's experiment {found.name!r} is deleted: restore it (`mlflow experiments "
            f"restore --experiment-id {found.experiment_id}`), or name another in {EXPERIMENT}."
        )
    return found
