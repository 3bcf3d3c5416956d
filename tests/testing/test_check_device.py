"""The suite for devices: snapshots of several kinds pass, and each fault is found."""

from __future__ import annotations

import itertools

import pytest

from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.testing import check_device, checks_for


@pytest.mark.parametrize("device", ["ideal", "ibm_nairobi", "ibm_sherbrooke", "ibm_torino"])
@pytest.mark.parametrize(("name", "check"), checks_for("device"))
def test_built_in_conforms(device, name, check):
    check(device)


def test_profiles_and_factories_are_checked_too(nairobi, ecr_line):
    check_device(ecr_line)
    check_device(lambda name: nairobi.model_copy(update={"name": name}), name="mine")


def with_qubits(device, **fields):
    qubits = tuple(qubit.model_copy(update=fields) for qubit in device.qubits)
    return device.model_copy(update={"qubits": qubits})


def with_edges(device, **fields):
    edges = tuple(edge.model_copy(update=fields) for edge in device.edges)
    return device.model_copy(update={"edges": edges})


FAULTS = {
    "dictionary": lambda device: device.model_dump(),
    "unchecked": lambda device: DeviceProfile.model_construct(**{**dict(device), "zz_scale": 3.0}),
    "nameless": lambda device: device.model_copy(update={"name": ""}),
    "microseconds": lambda device: with_qubits(device, t1=120.0),
    "nanoseconds": lambda device: with_edges(device, duration=300.0),
    "gigahertz": lambda device: with_qubits(device, frequency=5.1),
    "fidelities": lambda device: with_qubits(device, p1_given_0=0.98, p0_given_1=0.97),
}


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("dictionary", "gives_a_valid_profile", "type dict"),
        ("unchecked", "gives_a_valid_profile", "zz_scale"),
        ("nameless", "gives_a_valid_profile", "empty name"),
        ("microseconds", "values_are_in_seconds_and_hertz", "t1 = 120 for qubit 0"),
        ("nanoseconds", "values_are_in_seconds_and_hertz", "duration = 300 for edge (0, 1)"),
        ("gigahertz", "values_are_in_seconds_and_hertz", "frequency = 5.1"),
        ("fidelities", "has_a_placement", "p1_given_0"),
    ],
)
def test_fault_is_found_and_named(fault, check, words, nairobi):
    with pytest.raises(AssertionError) as caught:
        check_device(lambda name: FAULTS[fault](nairobi))
    message = str(caught.value)
    assert f"check {check}: found" in message
    assert words in message
    assert "; expected" in message


def test_device_that_changes_between_calls_is_found(nairobi):
    scales = itertools.count(1)
    drifting = lambda name: nairobi.model_copy(update={"zz_scale": 1 / next(scales)})  # noqa: E731
    with pytest.raises(AssertionError, match="check is_the_same_at_every_call"):
        check_device(drifting)


def test_device_without_couplings_is_found(nairobi):
    lonely = nairobi.model_copy(update={"edges": ()})
    with pytest.raises(AssertionError, match=r"check has_a_placement: found DeviceError"):
        check_device(lonely)


def test_device_under_the_name_of_another_is_found(monkeypatch):
    other = load_device("ibm_mumbai").model_copy(update={"name": "ibm_nairobi"})
    monkeypatch.setattr("qnad_art.device.catalogue.ideal", lambda name: other)
    with pytest.raises(AssertionError, match="expected a profile named 'ideal'"):
        check_device("ideal")


def test_loss_in_json_is_found(nairobi, monkeypatch):
    monkeypatch.setattr(
        DeviceProfile, "load", classmethod(lambda cls, path: with_edges(nairobi, zz_hz=0.0))
    )
    with pytest.raises(AssertionError, match="check goes_through_json: found another profile"):
        check_device(nairobi)
