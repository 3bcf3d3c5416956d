"""Conformance suite for devices: a valid profile in SI units on which products can run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qnad_art.circuits.response import READOUTS, response_table
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.placement.placement import device_placement
from qnad_art.testing.checks import Suite, expect, expect_type, registered

SITES = 8
"""Number of sites of all kinds to tabulate; all sites of a large device would take long."""
PAIRS = 3
BROKEN = -0.05
"""Tolerance: some qubits of snapshots have no readout contrast, so their products vanish."""
ANGLES = np.linspace(-np.pi, np.pi, 17)

_UNITS: dict[str, tuple[float, float]] = {
    "t1": (1e-9, 1.0),
    "t2": (1e-9, 1.0),
    "duration": (0.0, 1e-3),
    "frequency": (1e6, 1e12),
    "anharmonicity": (-1e10, 1e10),
    "zz_hz": (-1e8, 1e8),
}
"""Plausible ranges by suffix of a field's name; values outside cannot be in seconds or Hz."""


@dataclass(frozen=True)
class _Case:
    """A factory of profiles, and the name with which to call it."""

    factory: Callable[[str], DeviceProfile]
    name: str
    registered: bool

    @cached_property
    def profile(self) -> DeviceProfile:
        return self.factory(self.name)


def gives_a_valid_profile(case: _Case) -> None:
    """The factory returns a DeviceProfile whose fields pass validation."""
    profile = case.profile
    expect_type(profile, DeviceProfile)
    checked = DeviceProfile.from_dict(profile.model_dump(), source=case.name)
    expect(
        checked == profile,
        found="fields that validation changes",
        expected="a profile made by DeviceProfile(…), from_dict or from_backend",
    )
    expect(profile.name, found="an empty name", expected="the device's name")


def values_are_in_seconds_and_hertz(case: _Case) -> None:
    """Times are below 1 s and gates below 1 ms; frequencies are 1 MHz or more."""
    for place, field, value in _quantities(case.profile):
        for ending, (low, high) in _UNITS.items():
            if field.endswith(ending) and value:
                expect(
                    low <= value <= high,
                    found=f"{field} = {value:g} for {place}",
                    expected=f"{low:g} to {high:g}: SI units (s, Hz)",
                )


def _quantities(profile: DeviceProfile) -> Iterator[tuple[str, str, float]]:
    parts = [(f"qubit {number}", qubit) for number, qubit in enumerate(profile.qubits)]
    edges = [(f"edge ({edge.control}, {edge.target})", edge) for edge in profile.edges]
    for place, part in (*parts, *edges):
        for field, value in part.model_dump().items():
            if isinstance(value, float):
                yield place, field, value


def is_the_same_at_every_call(case: _Case) -> None:
    """Profile and hash are equal at every call, because plans refer to a device by its hash."""
    again = case.factory(case.name)
    expect(
        again.hash == case.profile.hash and again == case.profile,
        found=f"hash {again.hash[:12]} in the second call, {case.profile.hash[:12]} in the first",
        expected="the same profile; keep a snapshot of data that change with time",
    )


def its_name_loads_it_again(case: _Case) -> None:
    """Its name loads the same device: ``qnad describe`` loads the device that a plan names."""
    if not case.registered:
        return
    found = load_device(case.profile.name).hash
    expect(
        found == case.profile.hash,
        found=f"a profile named {case.profile.name!r}, under which another device is registered",
        expected=f"a profile named {case.name!r}",
    )


def goes_through_json(case: _Case) -> None:
    """A profile that is saved and loaded is equal and has the same hash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device.json"
        case.profile.save(path)
        loaded = DeviceProfile.load(path)
    expect(
        loaded == case.profile and loaded.hash == case.profile.hash,
        found="another profile after save and load",
        expected="an equal one, with the same hash",
    )


def has_a_placement(case: _Case) -> None:
    """A qubit can run products and has a neighbour with a native gate for injection."""
    placement = device_placement(case.profile)
    injecting = [site for site in placement.sites if site.neighbour is not None]
    expect(injecting, found="no site with a neighbour", expected="at least one")
    for site in injecting:
        site.gate(case.profile)


def responses_are_physical(case: _Case) -> None:
    """⟨Z⟩ stays in [-1, 1] for all angles, and no qubit inverts the sign of products."""
    every = device_placement(case.profile).sites
    sites = every[:: max(1, len(every) // SITES)]
    theta, phi = (grid[None, None] for grid in np.meshgrid(ANGLES, ANGLES))
    site = np.arange(len(sites))[:, None, None, None]
    pairs = np.arange(-PAIRS, PAIRS + 1)[None, :, None, None]
    for readout in READOUTS:
        table = response_table(case.profile, sites, max_pairs=PAIRS, readout=readout)
        found = table.expectation(*np.broadcast_arrays(theta, phi, site, pairs))
        largest = float(np.abs(found).max())
        expect(
            np.isfinite(found).all() and largest <= 1 + 1e-9,
            found=f"|⟨Z⟩| up to {largest:g} with readout {readout!r}",
            expected="at most 1: some probability or time of the profile is impossible",
        )
        contraction = table.values[:, PAIRS, 2, 2]
        worst = int(contraction.argmin())
        expect(
            contraction[worst] > BROKEN,
            found=f"products on qubit {sites[worst].qubit} that keep {contraction[worst]:.3f} of "
            "their value",
            expected="0 to 1; p1_given_0 and p0_given_1 are probabilities of wrong outcomes",
        )


SUITE: Suite[_Case] = Suite("device")


@SUITE.run_on
def check_device(
    device: str | DeviceProfile | Callable[[str], DeviceProfile], *, name: str = "device"
) -> _Case:
    """Check a device.

    Args:
        device: registered name, profile, or factory ``factory(name)``.
        name: the name with which a factory is called.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    if isinstance(device, DeviceProfile):
        profile = device
        return _Case(lambda name: profile, profile.name, registered=False)
    if isinstance(device, str):
        return _Case(registered("device", device), device, registered=True)
    return _Case(device, name, registered=False)
