"""Conformance of devices: a sound profile in SI units that products can run on."""

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
from qnad_art.testing.checks import Suite, expect, registered

SITES = 8
"""So many sites, spread over all kinds, are tabulated: all of a large device take long."""
PAIRS = 3
BROKEN = -0.05
"""Snapshots have qubits that read nothing, whose products keep 0 of their value, within error."""
ANGLES = np.linspace(-np.pi, np.pi, 17)

_UNITS: dict[str, tuple[float, float]] = {
    "t1": (1e-9, 1.0),
    "t2": (1e-9, 1.0),
    "duration": (0.0, 1e-3),
    "frequency": (1e6, 1e12),
    "anharmonicity": (-1e10, 1e10),
    "zz_hz": (-1e8, 1e8),
}
"""By the end of a field's name: what lies outside cannot be in seconds or Hz."""


@dataclass(frozen=True)
class _Case:
    """A factory of profiles and the name to call it with."""

    factory: Callable[[str], DeviceProfile]
    name: str
    registered: bool

    @cached_property
    def profile(self) -> DeviceProfile:
        return self.factory(self.name)


def gives_a_valid_profile(case: _Case) -> None:
    """A DeviceProfile whose fields pass its own validation."""
    profile = case.profile
    kind = type(profile).__name__
    expect(isinstance(profile, DeviceProfile), found=f"a {kind}", expected="a DeviceProfile")
    checked = DeviceProfile.from_dict(profile.model_dump(), source=case.name)
    expect(
        checked == profile,
        found="fields that validation changes",
        expected="a profile made by DeviceProfile(…), from_dict or from_backend",
    )
    expect(profile.name, found="an empty name", expected="the device's name")


def values_are_in_seconds_and_hertz(case: _Case) -> None:
    """Times below a second and a gate below a millisecond; frequencies of MHz and more."""
    for place, field, value in _quantities(case.profile):
        for ending, (low, high) in _UNITS.items():
            if field.endswith(ending) and value:
                expect(
                    low <= value <= high,
                    found=f"{field} = {value:g} of {place}",
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
    """Equal profile and hash: plans and results refer to a device by its hash."""
    again = case.factory(case.name)
    expect(
        again.hash == case.profile.hash and again == case.profile,
        found=f"hash {again.hash[:12]} at the second call, {case.profile.hash[:12]} at the first",
        expected="the same profile; keep a snapshot of what changes with time",
    )


def its_name_loads_it_again(case: _Case) -> None:
    """Saved plans name their device, and ``qnad describe`` loads it by that name."""
    if not case.registered:
        return
    found = load_device(case.profile.name).hash
    expect(
        found == case.profile.hash,
        found=f"a profile named {case.profile.name!r}, under which another device is registered",
        expected=f"a profile named {case.name!r}",
    )


def goes_through_json(case: _Case) -> None:
    """Saved and loaded it is equal, hash included."""
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
    """A qubit that runs products, and a neighbour with a native gate to inject from."""
    placement = device_placement(case.profile)
    injecting = [site for site in placement.sites if site.neighbour is not None]
    expect(injecting, found="no site with a neighbour", expected="at least one")
    for site in injecting:
        site.gate(case.profile)


def responses_are_physical(case: _Case) -> None:
    """⟨Z⟩ stays in [-1, 1] for all angles, and no qubit reads products the wrong way round."""
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
            expected="0 to 1; p1_given_0 and p0_given_1 are probabilities to read wrongly",
        )


def _prepare(
    device: str | DeviceProfile | Callable[[str], DeviceProfile], *, name: str = "device"
) -> _Case:
    if isinstance(device, DeviceProfile):
        profile = device
        return _Case(lambda name: profile, profile.name, registered=False)
    if isinstance(device, str):
        return _Case(registered("device", device), device, registered=True)
    return _Case(device, name, registered=False)


SUITE = Suite(
    "device",
    _prepare,
    gives_a_valid_profile,
    values_are_in_seconds_and_hertz,
    is_the_same_at_every_call,
    its_name_loads_it_again,
    goes_through_json,
    has_a_placement,
    responses_are_physical,
)


def check_device(
    device: str | DeviceProfile | Callable[[str], DeviceProfile], *, name: str = "device"
) -> None:
    """Check a device.

    Args:
        device: registered name, a profile, or a factory ``factory(name)``.
        name: with which a factory is called.

    Raises:
        AssertionError: names the check that failed, what was found and what is expected.
        UnknownNameError, PluginError: the name stands for nothing that can be used.
    """
    SUITE.run(device, name=name)
