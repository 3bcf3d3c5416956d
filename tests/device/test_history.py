"""Dated calibrations, and what changed between two of them."""

import json

import pytest
from typer.testing import CliRunner

from qnad_art.cli import app
from qnad_art.device.catalogue import load_device
from qnad_art.device.comparison import compared, gone
from qnad_art.device.drift import TYPICAL
from qnad_art.device.history import VARIABLE, History, read_history
from qnad_art.errors import DeviceError

DAYS = ("2024-05-27", "2024-05-28", "2024-06-27")


@pytest.fixture
def history(tmp_path, monkeypatch):
    """Three calibrations of ibm_nairobi, the later ones drifted."""
    device = load_device("ibm_nairobi")
    states = [device, *TYPICAL.path(device, [24.0, 744.0], seed=0)]
    for day, state in zip(DAYS, states, strict=True):
        dated = state.model_copy(update={"name": "ibm_nairobi", "calibrated": f"{day} 12:00:00"})
        dated.save(tmp_path / f"{day}.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def test_a_device_of_a_day(history):
    first, later = (load_device(f"ibm_nairobi@{day}") for day in DAYS[:2])
    assert first.hash == load_device("ibm_nairobi").hash
    assert later.name == "ibm_nairobi@2024-05-28"
    assert later.hash != first.hash
    scaled = load_device("ibm_nairobi@2024-05-27[readout=0]")
    assert scaled.qubits[0].p1_given_0 == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ibm_nairobi@yesterday", "'yesterday' is not a date"),
        ("ibm_nairobi@2024-05-29", "it has 2024-05-27, 2024-05-28, 2024-06-27"),
        ("ibm_lagos@2024-05-27", "it has none of that device"),
    ],
)
def test_days_that_there_are_not(history, name, says):
    with pytest.raises(DeviceError, match=says):
        load_device(name)


def test_without_a_folder(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(DeviceError, match=f"set {VARIABLE}"):
        load_device("ibm_nairobi@2024-05-27")
    monkeypatch.setenv(VARIABLE, "nowhere")
    with pytest.raises(DeviceError, match="nowhere is not a folder"):
        load_device("ibm_nairobi@2024-05-27")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "other.json"),
        ('{"name": "x"}', "other.json is not a valid device profile"),
        (None, "other.json: the calibration of ibm_nairobi is None"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(history, content, says):
    if content is None:
        plain = json.loads((history / "2024-05-27.json").read_text())
        content = json.dumps({**plain, "calibrated": None})
    (history / "other.json").write_text(content)
    with pytest.raises(Exception, match=says):
        load_device("ibm_nairobi@2024-05-27")


def test_a_history_is_a_drift_model(history):
    profiles = read_history(history)
    model = History(profiles=tuple(profiles))
    found = model.path(profiles[0], [0.0, 23.0, 24.0, 743.0])
    hashes = [profile.hash for profile in profiles]
    assert [device.hash for device in found] == [hashes[0], hashes[0], hashes[1], hashes[1]]
    with pytest.raises(DeviceError, match="does not reach 1000 hours"):
        model.path(profiles[0], [1000.0])


def test_changes_are_those_of_the_profiles():
    device = load_device("ibm_nairobi")
    edges = [e.model_copy(update={"zz_hz": 1.1 * e.zz_hz}) for e in device.edges[:-1]]
    other = device.model_copy(update={"edges": edges})
    changes = {change.quantity: change for change in compared(device, other)}
    assert changes["ZZ coupling (Hz)"].relative == pytest.approx(0.1)
    assert changes["T1 (s)"].largest == 0
    last = device.edges[-1]
    assert gone(device, other) == [f"edge {last.control}–{last.target} is only in ibm_nairobi"]
    with pytest.raises(DeviceError, match="7 qubits and ibm_mumbai 27"):
        compared(device, load_device("ibm_mumbai"))


def test_the_command_shows_them(history):
    done = CliRunner().invoke(app, ["devices", "diff", *(f"ibm_nairobi@{d}" for d in DAYS[:2])])
    assert done.exit_code == 0, done.output
    assert "ZZ coupling (Hz)" in done.output
    assert "hardened.on" in done.output
    same = CliRunner().invoke(app, ["devices", "diff", "ibm_nairobi", "ibm_nairobi"])
    assert "Both have the same noise" in same.output
