"""The conformance suite of sinks; what is stored is read from the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from qnad_art.testing import check_sink


@pytest.mark.usefixtures("no_figures")
def test_conforms(store: MlflowClient) -> None:
    # Else a database keeps its artifacts in the working directory.
    experiment = store.create_experiment("qnad", Path("artifacts").absolute().as_uri())

    def contents(folder: Path) -> dict[str, Any]:
        """Figures, parameters and tags of every cell of the run that the folder belongs to."""
        own = json.loads((folder / "mlflow.json").read_text())["run"]
        (parent,) = store.search_runs([experiment], f"tags.`qnad.run` = '{own}'")
        inside = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        return {
            child.data.tags["qnad.key"]: (
                {
                    name: [(m.value, m.step) for m in store.get_metric_history(run_id, name)]
                    for name in child.data.metrics
                },
                child.data.params,
                {k: v for k, v in child.data.tags.items() if not k.startswith("mlflow.")},
            )
            for child in store.search_runs([experiment], inside)
            for run_id in [child.info.run_id]
        }

    check_sink("mlflow", contents=contents)
