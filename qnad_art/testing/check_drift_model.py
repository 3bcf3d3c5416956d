"""Conformance of drift models: no drift at the start, devices of one kind, seeds that repeat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from qnad_art.device.catalogue import load_device
from qnad_art.device.drift import SPANS, DriftModel
from qnad_art.device.profile import DEFAULT_DEVICE, DeviceProfile
from qnad_art.testing.checks import Suite, expect, registered

HOURS = tuple(SPANS.values())


@dataclass(frozen=True)
class _Case:
    """A model under its registered name, on the default device."""

    model: DriftModel

    @cached_property
    def device(self) -> DeviceProfile:
        return load_device(DEFAULT_DEVICE)


def nothing_has_drifted_at_the_start(case: _Case) -> None:
    """After no time the device is as it was calibrated."""
    (found,) = case.model.path(case.device, [0.0], seed=0)
    expect(found.hash == case.device.hash, found="another device at 0 h", expected="the same")


def devices_keep_their_structure(case: _Case) -> None:
    """Qubits, edges, durations and the crosstalk model stay; something else changes."""
    for found in case.model.path(case.device, HOURS, seed=0):
        kept = [(e.control, e.target, e.duration) for e in found.edges]
        expect(
            kept == [(e.control, e.target, e.duration) for e in case.device.edges]
            and len(found.qubits) == len(case.device.qubits)
            and found.crosstalk_model == case.device.crosstalk_model,
            found=f"other edges, durations or qubits: {found.name}",
            expected=f"those of {case.device.name}",
        )
        expect(found.hash != case.device.hash, found="no change", expected="some drift")


def seeds_repeat(case: _Case) -> None:
    """A seed gives the same devices again."""
    paths = [case.model.path(case.device, HOURS, seed=seed) for seed in (1, 1)]
    first, again = ([device.hash for device in path] for path in paths)
    expect(first == again, found="other devices for the same seed", expected="the same")


def parts_can_be_switched_off(case: _Case) -> None:
    """Without any of its parts nothing drifts."""
    from qnad_art.device.drift import PARTS

    still = case.model.scaled(dict.fromkeys(PARTS, 0.0))
    found = still.drifted(case.device, "month", seed=0)
    expect(found.hash == case.device.hash, found="a drifted device", expected="the same device")


SUITE: Suite[_Case] = Suite("drift model")


@SUITE.run_on
def check_drift_model(subject: str) -> _Case:
    """Check a drift model.

    Args:
        subject: its registered name.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    return _Case(registered("drift model", subject))
