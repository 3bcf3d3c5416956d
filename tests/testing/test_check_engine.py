"""The suite for engines: Aer and an engine by the table pass, and each fault is found."""

from __future__ import annotations

import numpy as np
import pytest

from qnad_art.circuits.response import response_table
from qnad_art.engines.circuit import CircuitEngine
from qnad_art.testing import check_engine, checks_for


class TableEngine(CircuitEngine):
    """Correct and fast: expectations from the response table, counts from the binomial law."""

    def expectations(self, theta, phi, sites, site, pairs):
        mean = self.mean(theta, phi, sites, site, pairs)
        return mean if self.shots is None else self.counted(mean, self.shots)

    def mean(self, theta, phi, sites, site, pairs):
        most = max(2, int(np.abs(pairs).max(initial=0)))
        table = response_table(self.device, sites, max_pairs=most, readout=self.readout)
        return table.expectation(theta, phi, site, pairs)

    def counted(self, mean, shots):
        ones = self.random.binomial(shots, np.clip((1 - mean) / 2, 0, 1))
        return 1 - 2 * ones / shots


class CountingEngine(TableEngine):
    exact = False


@pytest.mark.parametrize(("name", "check"), checks_for("engine"))
def test_aer_conforms(name, check):
    check("aer", products=40)


@pytest.mark.parametrize("engine", [TableEngine, CountingEngine])
@pytest.mark.parametrize("device", ["ibm_nairobi", "ideal"])
def test_engine_by_the_table_conforms(engine, device):
    check_engine(engine, device=device)


def test_settings_reach_the_engine():
    given = []

    class Recording(TableEngine):
        def __init__(self, device, *, backend, **settings):
            given.append(backend)
            super().__init__(device, **settings)

    check_engine(Recording, products=20, backend="here")
    assert set(given) == {"here"}


class NotAnEngine:
    exact = True

    def __init__(self, device, *, shots=None, readout="twirled", seed=0, max_products=1):
        self.device, self.shots, self.readout = device, shots, readout


class ForgetsReadout(TableEngine):
    def __init__(self, device, *, readout="twirled", **settings):
        super().__init__(device, **settings)


class ReallyCounts(TableEngine):
    """Says it is exact, and draws without being asked to."""

    def expectations(self, theta, phi, sites, site, pairs):
        return self.counted(self.mean(theta, phi, sites, site, pairs), 1024)


class TakesNoShotsForSome(TableEngine):
    """Says it only counts, and takes shots=None all the same."""

    exact = False

    def __init__(self, device, *, shots=None, **settings):
        super().__init__(device, shots=1024 if shots is None else shots, **settings)


class Column(TableEngine):
    def mean(self, *products):
        return super().mean(*products)[:, None]


class Noiseless(TableEngine):
    def mean(self, theta, phi, sites, site, pairs):
        return np.sin(theta) * np.sin(phi)


class WithoutCrosstalk(TableEngine):
    def mean(self, theta, phi, sites, site, pairs):
        return super().mean(theta, phi, sites, site, 0 * pairs)


class WrongPolarity(TableEngine):
    def mean(self, theta, phi, sites, site, pairs):
        return super().mean(theta, phi, sites, site, -pairs)


class AlwaysTwirled(TableEngine):
    def mean(self, theta, phi, sites, site, pairs):
        table = response_table(self.device, sites, max_pairs=2, readout="twirled")
        return table.expectation(theta, phi, site, pairs)


class MixedUp(TableEngine):
    """Runs site by site and forgets to sort the results back."""

    def mean(self, theta, phi, sites, site, pairs):
        return super().mean(theta, phi, sites, site, pairs)[np.argsort(site, kind="stable")]


class MixedUpCounting(MixedUp):
    exact = False


class BiasedCounts(TableEngine):
    def counted(self, mean, shots):
        return super().counted(0.95 * mean + 0.02, shots)


class HalfTheShots(TableEngine):
    def counted(self, mean, shots):
        return super().counted(mean, shots // 2)


class GaussianShots(TableEngine):
    def counted(self, mean, shots):
        noise = self.random.normal(size=mean.shape) * np.sqrt((1 - mean**2) / shots)
        return np.clip(mean + noise, -1, 1)


class Unseeded(TableEngine):
    def counted(self, mean, shots):
        return 1 - 2 * np.random.binomial(shots, (1 - mean) / 2) / shots  # noqa: NPY002


class OneSeed(TableEngine):
    def counted(self, mean, shots):
        return 1 - 2 * np.random.default_rng(0).binomial(shots, (1 - mean) / 2) / shots


class PadsBatches(TableEngine):
    """Loses the last product of a batch that is not full."""

    def mean(self, theta, phi, sites, site, pairs):
        mean = super().mean(theta, phi, sites, site, pairs)
        if len(mean) % 100:
            mean[-1] = mean[0]
        return mean


class WritesIntoAngles(TableEngine):
    def mean(self, theta, phi, sites, site, pairs):
        mean = super().mean(theta, phi, sites, site, pairs)
        theta += np.pi
        return mean


class TakesAnyShots(TableEngine):
    def __init__(self, device, *, shots=None, **settings):
        super().__init__(device, shots=None if shots is None else max(shots, 1), **settings)


class WrongError(TableEngine):
    def __init__(self, device, *, shots=None, **settings):
        if shots is not None and shots < 1:
            raise ZeroDivisionError("division by zero")
        super().__init__(device, shots=shots, **settings)


class RescalesLayers(TableEngine):
    def __call__(self, layer, x):
        return super().__call__(layer, x) * 1.001


class CutsGradients(TableEngine):
    def __call__(self, layer, x):
        return x.sum() * 0 + super().__call__(layer, x).detach()


class CountsLayersBadly(CountingEngine):
    def __call__(self, layer, x):
        return super().__call__(layer, x) + 0.2


class Boundless(TableEngine):
    def __init__(self, device, *, max_products=None, **settings):
        super().__init__(device, **settings)


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (NotAnEngine, "is_a_circuit_engine", "type NotAnEngine"),
        (ForgetsReadout, "is_a_circuit_engine", "readout 'twirled'"),
        (ReallyCounts, "goes_without_shots_if_it_says_so", "between two seeds"),
        (TakesNoShotsForSome, "goes_without_shots_if_it_says_so", "is accepted"),
        (Column, "goes_without_shots_if_it_says_so", "shape (5, 1)"),
        (Noiseless, "expectations_equal_the_response_table", "readout 'twirled'"),
        (WithoutCrosstalk, "expectations_equal_the_response_table", "pairs at Site"),
        (WrongPolarity, "expectations_equal_the_response_table", "pairs at Site"),
        (AlwaysTwirled, "expectations_equal_the_response_table", "readout 'raw'"),
        (MixedUp, "expectations_equal_the_response_table", "within 1e-09"),
        (MixedUpCounting, "counts_follow_the_response_table", "standard deviations"),
        (BiasedCounts, "counts_follow_the_response_table", "standard deviations"),
        (HalfTheShots, "counts_follow_the_response_table", "standard deviations"),
        (GaussianShots, "counts_are_whole", "not a mean of 50 outcomes"),
        (Unseeded, "seeds_reproduce", "different counts"),
        (OneSeed, "seeds_reproduce", "same counts with seed=1 and seed=2"),
        (PadsBatches, "order_and_batches_change_nothing", "in three batches"),
        (WritesIntoAngles, "leaves_its_inputs_alone", "theta"),
        (TakesAnyShots, "refuses_bad_settings", "shots=0 is accepted"),
        (WrongError, "refuses_bad_settings", "ZeroDivisionError"),
        (RescalesLayers, "layers_run_as_compiled", "off by"),
        (CutsGradients, "layers_run_as_compiled", "a gradient that differs"),
        (CountsLayersBadly, "layers_run_as_compiled", "z-scores"),
        (Boundless, "refuses_more_than_its_most_products", "max_products=1 is accepted"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_engine(faulty)
    message = str(caught.value)
    assert f"engine '{faulty.__name__}', check {check}: found" in message
    assert words in message
    assert "; expected" in message
