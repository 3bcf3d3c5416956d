"""Conformance of mappings: angles that rise, and layers that come out as their circuits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qnad_art.engines.aer import AerEngine
from qnad_art.layers.mappings import Mapping
from qnad_art.network.conversion import convert
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.testing.checks import Suite, expect, registered
from qnad_art.testing.specimens import built, install_random_crosstalk, random_tensor

POINTS = 201
SCALE = 1.7
"""An activation scale that is not 1, by which activations are divided."""
PAIRS = 2
ALIKE = 1e-12


@dataclass(frozen=True)
class _Case:
    """A mapping under its registered name."""

    name: str
    mapping: Mapping

    @property
    def activations(self) -> torch.Tensor:
        return torch.linspace(-1, 1, POINTS, dtype=torch.float64)

    def layer(self, **settings: Any) -> QuantumExecutedModule:
        """A layer of random weights under random crosstalk, on the default device."""
        network = nn.Sequential(built(nn.Linear(6, 4))).double().eval()
        x = self.inputs
        module = convert(network, x, mapping=self.name, max_pairs=PAIRS, seed=0, **settings)
        install_random_crosstalk(module, most=PAIRS)
        return module

    @property
    def inputs(self) -> torch.Tensor:
        return 2 * SCALE * (random_tensor(5, 6, seed=1).double() - 0.5)


def angles_rise_over_a_half_turn(case: _Case) -> None:
    """θ rises from -π/2 to π/2, and the angle of -x̂ is -θ."""
    x = case.activations.numpy()
    theta = case.mapping.theta(x)
    expect(
        bool((np.diff(theta) > 0).all()) and math.isclose(theta[-1], math.pi / 2),
        found=f"angles from {theta[0]:.6g} to {theta[-1]:.6g}, at {POINTS} points",
        expected="angles that rise from -π/2 to π/2",
    )
    odd = float(np.abs(theta + theta[::-1]).max())
    expect(odd < ALIKE, found=f"θ(x̂) + θ(-x̂) up to {odd:.3g}", expected="0")


def terms_are_those_of_the_angles(case: _Case) -> None:
    """The compiled sine and cosine are those of θ, at any scale of the activations."""
    theta = torch.from_numpy(case.mapping.theta(case.activations.numpy()))
    x = SCALE * case.activations
    sine, cosine = case.mapping.sine(x, SCALE) / SCALE, case.mapping.cosine(x, SCALE)
    for name, found, wanted in (("sine", sine, theta.sin()), ("cosine", cosine, theta.cos())):
        worst = float((found - wanted).abs().max())
        expect(worst < 1e-7, found=f"a {name} that is off by {worst:.3g}", expected="that of θ")


def gradients_are_true(case: _Case) -> None:
    """The derivatives of sine and cosine are those of their values."""
    x = (SCALE * case.activations[1:-1]).requires_grad_()
    for term in (case.mapping.sine, case.mapping.cosine):
        holds = torch.autograd.gradcheck(lambda x, f=term: f(x, SCALE), (x,), raise_exception=False)
        expect(holds, found=f"another derivative of {term.__name__}", expected="the true one")


def decoding_is_a_factor(case: _Case) -> None:
    """What the sum is multiplied by is a finite number above 0."""
    factor = case.mapping.decoding
    expect(0 < factor < math.inf, found=f"decoding {factor}", expected="a finite number above 0")


def layers_come_out_as_their_circuits(case: _Case) -> None:
    """A compiled layer equals its circuits on Aer, under noise and crosstalk, with its bias."""
    for bias in ("classical", "quantum"):
        for gain in ("calibrated", "raw"):
            module = case.layer(bias=bias, gain=gain)
            (layer,) = module.layers.values()
            engine = AerEngine(module.device_profile)
            with torch.no_grad():
                worst = float((layer(case.inputs) - engine(layer, case.inputs)).abs().max())
            expect(
                worst < 1e-9,
                found=f"outputs {worst:.3g} from those of the circuits ({bias} bias, {gain} gain)",
                expected="at most 1e-9",
            )


def a_bias_that_runs_as_products_stays_what_it_is(case: _Case) -> None:
    """Without noise the product of a bias, whose activation is always x̂ = 1, gives the bias."""
    zeros = torch.zeros_like(case.inputs)
    outputs = []
    for bias in ("classical", "quantum"):
        network = nn.Sequential(built(nn.Linear(6, 4))).double().eval()
        module = convert(network, case.inputs, device="ideal", mapping=case.name, bias=bias)
        with torch.no_grad():
            outputs.append(module(zeros))
    worst = float((outputs[0] - outputs[1]).abs().max())
    expect(worst < 1e-9, found=f"biases that differ by {worst:.3g}", expected="the same")


def saved_classifiers_know_it(case: _Case) -> None:
    """A converted module names the mapping among its settings."""
    found = case.layer().settings.mapping
    expect(found == case.name, found=f"the mapping {found!r}", expected=f"{case.name!r}")


SUITE: Suite[_Case] = Suite("mapping")


@SUITE.run_on
def check_mapping(subject: str) -> _Case:
    """Check a mapping.

    Args:
        subject: its registered name, under which settings and saved classifiers refer to it.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    return _Case(subject, registered("mapping", subject))
