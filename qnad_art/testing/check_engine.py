"""Conformance suite for execution engines, compared with response tables and layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qnad_art.benchmark.threats.victim import seeded
from qnad_art.circuits.response import READOUTS
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.engines import run_on
from qnad_art.engines.circuit import Array, CircuitEngine
from qnad_art.testing.checks import (
    Suite,
    expect,
    expect_refusal,
    expect_type,
    expect_unchanged,
    registered,
)
from qnad_art.testing.engine_case import Case, Products, run_products
from qnad_art.testing.specimens import random_tensor

OFTEN_ENOUGH = 25
"""Least expected count of each outcome for which z-scores are treated as normal."""


def is_a_circuit_engine(case: Case) -> None:
    """The engine is a subclass of CircuitEngine and keeps its arguments."""
    engine = case.engine(shots=case.shots, readout="raw")
    expect_type(engine, CircuitEngine)
    for name, given in (("device", case.device), ("shots", case.shots), ("readout", "raw")):
        found = getattr(engine, name)
        expect(found == given, found=f"{name} {found!r}", expected=f"{given!r}, as given")


def goes_without_shots_if_it_says_so(case: Case) -> None:
    """``shots=None`` gives expectations if ``exact`` is true and is refused otherwise."""
    if not case.exact:
        with expect_refusal("shots=None for an engine whose `exact` is False"):
            case.engine(shots=None)
        return
    few = case.drawn.of(np.arange(5))
    first, second = (run_products(case.engine(shots=None, seed=seed), few) for seed in (0, 1))
    difference = np.abs(first - second).max()
    expect(
        difference <= case.tolerance,
        found=f"expectations that differ by {difference:.2g} between two seeds",
        expected="exact values, equal for every seed; or `exact = False` in the class",
    )


def expectations_equal_the_response_table(case: Case) -> None:
    """Without shots, values are within ``tolerance`` of the exact table for both readouts."""
    if not case.exact:
        return  # the next check compares its counts
    for readout in READOUTS:
        found = run_products(case.engine(shots=None, readout=readout), case.drawn)
        difference = np.abs(found - case.expected(readout))
        worst = int(difference.argmax())
        expect(
            difference[worst] <= case.tolerance,
            found=f"⟨Z⟩ {found[worst]:.9f} for {_product(case.drawn, worst)}, readout {readout!r}",
            expected=f"{case.expected(readout)[worst]:.9f} within {case.tolerance:g}",
        )


def counts_follow_the_response_table(case: Case) -> None:
    """With shots, z-scores follow the binomial law (sum and sum of squares) for both readouts."""
    for readout in READOUTS:
        engine = case.engine(shots=case.shots, readout=readout, seed=1)
        _expect_law(
            run_products(engine, case.drawn),
            case.expected(readout),
            case.shots,
            case.level,
            f"of {case.products} products with readout {readout!r}",
        )


def _expect_law(counted: Array, mean: Array, shots: int, level: float, what: str) -> None:
    """Test bias (Σz) and spread (Σz²) of means of ±1 outcomes, each at ``level``."""
    from scipy.stats import norm

    certainty = 1 - mean**2
    use = certainty * shots > 4 * OFTEN_ENOUGH
    wrong = np.abs(counted - mean)[~use].max(initial=0.0) * shots > 4 * OFTEN_ENOUGH
    z = (counted - mean)[use] / np.sqrt(certainty[use] / shots)
    # Var z² of a standardised mean of ±1: 2 + (excess kurtosis of one shot) / shots.
    kurtosis = (4 - 6 * certainty[use]) / certainty[use]
    bias = z.sum() / np.sqrt(max(len(z), 1))
    spread = ((z**2).sum() - len(z)) / np.sqrt(np.sum(2 + kurtosis / shots) or 1.0)
    limit = norm.isf(level / 2)
    expect(
        not wrong and abs(bias) <= limit and abs(spread) <= limit,
        found=f"counts {what} that are off by {bias:.1f} (bias) and {spread:.1f} (spread of the "
        f"z-scores) standard deviations, largest |z| {np.abs(z).max(initial=0):.1f}",
        expected=f"both within ±{limit:.1f} (level {level:g}): binomial around the response table",
    )


def _product(products: Products, index: int) -> str:
    site = products.sites[int(products.site[index])]
    return (
        f"θ={products.theta[index]:.3f}, φ={products.phi[index]:.3f} with "
        f"{int(products.pairs[index])} pairs at {site}"
    )


def counts_are_whole(case: Case) -> None:
    """An estimate from S shots is a multiple of 1/S with the parity of S; it is not smoothed."""
    scaled = run_products(case.engine(shots=50, seed=0), case.drawn.of(np.arange(10))) * 50
    odd = np.abs((50 - scaled) / 2 - np.rint((50 - scaled) / 2)).max()
    expect(
        odd < 1e-6,
        found=f"values that are not a mean of 50 outcomes ±1, such as {scaled[0] / 50!r}",
        expected="(n₀ - n₁) / shots with n₀ + n₁ = shots",
    )


def seeds_reproduce(case: Case) -> None:
    """Counts depend on the seed and not on the global generators."""
    few = case.drawn.of(np.arange(min(20, case.products)))
    found = []
    for number, seed in enumerate((1, 1, 2)):
        with seeded(number):
            found.append(run_products(case.engine(shots=50, seed=seed), few))
    expect(
        np.array_equal(found[0], found[1]),
        found="different counts in a second engine with the same seed",
        expected="the same counts: draw only from generators seeded by `seed`",
    )
    expect(
        not np.array_equal(found[0], found[2]),
        found="the same counts with seed=1 and seed=2",
        expected="counts that depend on the seed",
    )


def order_and_batches_change_nothing(case: Case) -> None:
    """Products are independent: order and batches do not change ⟨Z⟩."""
    if not case.exact:
        return  # counts are drawn in order; the comparison with the table finds mix-ups
    whole = run_products(case.engine(shots=None), case.drawn)
    order = np.random.default_rng(1).permutation(case.products)
    engine = case.engine(shots=None)
    shuffled = run_products(engine, case.drawn.of(order))
    parts = [run_products(engine, case.drawn.of(part)) for part in np.array_split(order, 3)]
    for how, found in (("shuffled", shuffled), ("in three batches", np.concatenate(parts))):
        difference = np.abs(found - whole[order]).max()
        expect(
            difference <= case.tolerance,
            found=f"⟨Z⟩ that differs by {difference:.2g} when the products come {how}",
            expected="no difference: results correspond to products by position",
        )


def leaves_its_inputs_alone(case: Case) -> None:
    """The engine does not change the caller's angles, sites and pairs."""
    few = np.arange(min(10, case.products))
    given = case.drawn.of(few)
    case.own_way().expectations(*given)
    before = case.drawn.of(few).arrays()
    expect_unchanged(before, given.arrays(), by="the engine", expected="inputs as they were")


def refuses_bad_settings(case: Case) -> None:
    """Invalid settings are refused with an error of this package."""
    for settings in ({"readout": "loud"}, {"shots": 0}, {"shots": -1}):
        with expect_refusal(", ".join(f"{name}={value!r}" for name, value in settings.items())):
            case.engine(**{"shots": case.shots, **settings})


_LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (lambda: nn.Conv2d(1, 2, 2, padding=1), (1, 1, 2, 3)),
    "linear layer": (lambda: nn.Linear(6, 4), (2, 6)),
}


def layers_run_as_compiled(case: Case) -> None:
    """Layers under crosstalk have the compiled layer's output (or its law) and its gradient."""
    for what, (make, shape) in _LAYERS.items():
        for readout in READOUTS:
            inputs = 2 * random_tensor(*shape).double() - 1
            module = case.layer(make(), inputs, readout)
            (layer,) = module.layers.values()
            x = inputs.clone().requires_grad_()
            mean, variance = layer.moments(x)
            (gradient,) = torch.autograd.grad(mean.sum(), x)
            with run_on(module, case.own_way(readout=readout)):
                output = module(x)
                (found,) = torch.autograd.grad(output.sum(), x)
            _expect_output(case, output, mean, variance, layer, f"{what}, readout {readout!r}")
            expect(
                torch.allclose(found, gradient, rtol=1e-9, atol=1e-12),
                found=f"a gradient that differs from that of the compiled {what}",
                expected="that of the compiled layer, as CircuitEngine.__call__ gives it",
            )


def _expect_output(
    case: Case, output: Tensor, mean: Tensor, variance: Tensor | None, layer: Any, what: str
) -> None:
    expect(
        output.shape == mean.shape,
        found=f"an output of shape {tuple(output.shape)}",
        expected=f"{tuple(mean.shape)}, as for the {what}",
    )
    difference = (output - mean).detach()
    if variance is None:
        scale = 1 + float(mean.detach().abs().max())
        most = float(difference.abs().max())
        fan_in = layer.weight[0].numel()
        expect(
            most <= case.tolerance * fan_in * scale,
            found=f"an output that is off by {most:.2g} ({what})",
            expected=f"that of the compiled layer within {case.tolerance * fan_in * scale:.2g}",
        )
        return
    from scipy.stats import chi2

    z = difference / (variance.sqrt() * layer.noise_scale()).detach()
    tail = float(chi2.cdf(float((z**2).sum()), z.numel()))
    expect(
        case.level / 2 <= tail <= 1 - case.level / 2,
        found=f"outputs with z-scores up to {float(z.abs().max()):.1f} ({what})",
        expected=f"the compiled layer's mean and variance (χ² at level {case.level:g})",
    )


def refuses_more_than_its_most_products(case: Case) -> None:
    """A layer call that needs more than ``max_products`` circuits is refused."""
    make, shape = _LAYERS["linear layer"]
    x = random_tensor(*shape).double()
    module = case.layer(make(), x, "twirled")
    what = "a layer call of 48 circuits with max_products=1"
    with run_on(module, case.own_way(max_products=1)), expect_refusal(what):
        module(x)


SUITE: Suite[Case] = Suite("engine")


@SUITE.run_on
def check_engine(
    engine: str | Callable[..., CircuitEngine],
    *,
    device: DeviceLike = DEFAULT_DEVICE,
    products: int = 200,
    max_pairs: int = 2,
    shots: int = 1000,
    tolerance: float = 1e-9,
    level: float = 1e-4,
    **settings: Any,
) -> Case:
    """Check an execution engine against the exact response table of a device.

    Engines with ``exact = True`` must give expectations within ``tolerance``. The counts of every
    engine must follow the binomial law with the mean from the table. Each comparison is a test at
    ``level``; there are up to 8, so a correct engine fails for fewer than one seed in 1,000.

    Args:
        engine: registered name, class, or factory ``factory(device, **settings)``.
        device: device that defines the noise; for an engine without ZZ coupling, a profile with
            ``zz_scale=0``.
        products: number of random products per comparison.
        max_pairs: largest number of injected pairs per product; 0 means none.
        shots: number of shots, 200 or more.
        tolerance: tolerance of exact expectations.
        level: significance level of each statistical test.
        **settings: settings of the engine.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    factory, profile = registered("engine", engine), load_device(device)
    return Case(factory, settings, profile, products, max_pairs, shots, tolerance, level)
