"""Conformance of crosstalk models: rates that make sense, and steps that come out as compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from qnad_art.circuits.crosstalk_models import CrosstalkModel
from qnad_art.circuits.response import response_table
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DEFAULT_DEVICE, DeviceProfile
from qnad_art.engines.verify_steps import verify_steps
from qnad_art.placement.placement import device_placement
from qnad_art.testing.checks import Suite, expect, registered

STEPS = 4


@dataclass(frozen=True)
class _Case:
    """A model under its registered name, on the default device."""

    name: str
    model: CrosstalkModel

    @cached_property
    def device(self) -> DeviceProfile:
        return load_device(DEFAULT_DEVICE).changed({}, crosstalk_model=self.name)


def rates_are_of_pairs(case: _Case) -> None:
    """ζ is finite and does not depend on the order of the two qubits."""
    for edge in case.device.edges:
        pair = (edge.control, edge.target)
        rates = [case.model.rate(case.device, *qubits) for qubits in (pair, pair[::-1])]
        expect(
            math.isfinite(rates[0]) and rates[0] == rates[1],
            found=f"ζ = {rates[0]} and {rates[1]} rad/s of the qubits {pair}",
            expected="one finite rate",
        )


def counts_have_a_sign(case: _Case) -> None:
    """Crosstalk of the opposite count turns the weight's phase the other way."""
    sites = device_placement(case.device).sites
    table = response_table(case.device, sites, max_pairs=1)
    for site, (minus, _, plus) in zip(sites, table.turns, strict=True):
        turns = plus, minus
        expect(
            math.isclose(turns[0], -turns[1], rel_tol=0.1, abs_tol=1e-12),
            found=f"turns of {turns[0]:.3g} and {turns[1]:.3g} rad at {site}",
            expected="opposite turns",
        )


def steps_come_out_as_compiled(case: _Case) -> None:
    """Whole time steps on Aer give every product the ⟨Z⟩ that was compiled for it."""
    result = verify_steps(case.device, steps=STEPS)
    expect(
        result.passed,
        found=f"a difference of {result.largest_difference:.3g}",
        expected=f"at most {result.tolerance:g}",
    )


SUITE: Suite[_Case] = Suite("crosstalk model")


@SUITE.run_on
def check_crosstalk_model(subject: str) -> _Case:
    """Check a crosstalk model.

    Args:
        subject: its registered name, under which device profiles refer to it.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    return _Case(subject, registered("crosstalk model", subject))
