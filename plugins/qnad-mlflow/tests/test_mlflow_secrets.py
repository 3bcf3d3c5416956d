"""What counts as a secret."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qnad_mlflow.secrets import hide, hide_in


@pytest.mark.parametrize(
    "name",
    ["token", "ibm_token", "API_KEY", "apikey", "db-password", "client_secret", "credentials"],
)
def test_values_under_such_names_are_hidden(name):
    assert hide({"engine": [{name: "abc", "shots": 3}]}) == {
        "engine": [{name: "[hidden]", "shots": 3}]
    }


@pytest.mark.parametrize("name", ["tokenizer", "eot_samples", "keep_examples", "secretary"])
def test_other_names_are_not(name):
    assert hide({name: "abc"}) == {name: "abc"}


def test_unset_settings_stay_visible():
    assert hide({"token": None}) == {"token": None}


def test_values_of_variables_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-value")
    monkeypatch.setenv("SHORT_TOKEN", "1")
    monkeypatch.setenv("HARMLESS", "shots=1024")
    content = {"s3cr3t-value": ["Bearer s3cr3t-value", "shots=1024", 1]}
    assert hide(content) == {"[hidden]": ["Bearer [hidden]", "shots=1024", 1]}


def test_users_of_urls_are_hidden():
    assert hide_in("https://ann:pw@host:5000/x") == "https://[hidden]@host:5000/x"
    assert hide_in("sqlite:////tmp/a@b.db") == "sqlite:////tmp/a@b.db"


@pytest.mark.parametrize(("given", "sends"), [(None, False), ("false", True)])
def test_usage_data_go_to_mlflow_s_makers_only_if_asked_for(given, sends, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    for name in ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", given)
    code = (
        "import qnad_mlflow.sink; from mlflow.environment_variables import "
        "MLFLOW_DISABLE_TELEMETRY as off; print(not off.get())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().endswith(str(sends))
