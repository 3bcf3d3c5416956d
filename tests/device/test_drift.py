"""Drift of devices: the moments that the model says, and one path through time."""

import math

import numpy as np
import pytest

from qnad_art.device.catalogue import load_device
from qnad_art.device.drift import PARTS, SPANS, TYPICAL, Fluctuation, hours_of
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.testing import checks_for

DRAWS = 300


@pytest.fixture(scope="module")
def device():
    return load_device("ibm_nairobi")


@pytest.fixture(scope="module")
def after_a_day(device):
    return [TYPICAL.drifted(device, "day", seed=seed) for seed in range(DRAWS)]


def spread(values):
    return np.std(np.array(values), ddof=1)


def test_after_a_day_the_spreads_are_those_of_the_documentation(device, after_a_day):
    def logarithms(get):
        return [math.log(get(new) / get(old)) for d in after_a_day for new, old in rows(d)]

    def rows(drifted):
        return zip(drifted.qubits, device.qubits, strict=True)

    assert spread(logarithms(lambda q: q.t1)) == pytest.approx(0.20, rel=0.05)
    assert spread(logarithms(lambda q: q.t2)) == pytest.approx(0.20, rel=0.05)
    assert spread(logarithms(lambda q: q.p0_given_1)) == pytest.approx(0.30, rel=0.05)
    assert spread([q.detuning for d in after_a_day for q in d.qubits]) == pytest.approx(
        3e3, rel=0.05
    )
    ratios = [
        new.zz_hz / old.zz_hz
        for d in after_a_day
        for new, old in zip(d.edges, device.edges, strict=True)
    ]
    assert spread(ratios) == pytest.approx(0.02, rel=0.08)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.002)


def test_both_directions_of_an_edge_drift_together(after_a_day):
    for drifted in after_a_day[:5]:
        for edge in drifted.edges:
            assert drifted.edge_of[edge.target, edge.control].zz_hz == edge.zz_hz


def test_the_process_is_that_of_ornstein_and_uhlenbeck():
    """Its autocorrelation decays as exp(-t/τ), and its variance does not depend on the steps."""
    random = np.random.default_rng(0)
    process = Fluctuation(deviation=2.0, hours=5.0)
    start = process.deviation * random.standard_normal(200_000)
    later = process.after(start, 3.0, random)
    assert np.corrcoef(start, later)[0, 1] == pytest.approx(math.exp(-3 / 5), abs=0.005)
    steps = np.zeros(200_000)
    for _ in range(4):
        steps = process.after(steps, 1.0, random)
    once = process.after(np.zeros(200_000), 4.0, random)
    assert steps.std() == pytest.approx(once.std(), rel=0.01)


def test_a_path_drifts_on(device):
    """An hour after a day the device is near what it was, a month after it is not."""
    day, soon, late = TYPICAL.path(device, [24.0, 25.0, 744.0], seed=0)

    def distance(other):
        pairs = zip(day.qubits, other.qubits, strict=True)
        return np.mean([abs(a.detuning - b.detuning) for a, b in pairs])

    assert distance(soon) < distance(late) / 3


@pytest.mark.parametrize("part", PARTS)
def test_each_part_drifts_alone(device, part):
    alone = TYPICAL.scaled({other: float(other == part) for other in PARTS})
    found = alone.drifted(device, "day", seed=0)
    changed = {
        "relaxation": found.qubits[0].t1 != device.qubits[0].t1,
        "gates": found.edges[0].error != device.edges[0].error,
        "readout": found.qubits[0].p1_given_0 != device.qubits[0].p1_given_0,
        "zz": found.edges[0].zz_hz != device.edges[0].zz_hz,
        "detuning": found.qubits[0].detuning != 0,
    }
    assert changed == {name: name == part for name in PARTS}


def test_devices_by_name(device):
    named = load_device("ibm_nairobi[drift=day,seed=3]")
    assert named.hash == TYPICAL.drifted(device, "day", seed=3).hash
    assert load_device("ibm_nairobi[drift=12]").hash == TYPICAL.drifted(device, 12, seed=0).hash
    with pytest.raises(UnknownNameError, match=r"'weeks'.*day, hours, month"):
        load_device("ibm_nairobi[drift=weeks]")


def test_refusals(device):
    with pytest.raises(UnknownNameError, match="zzz"):
        TYPICAL.scaled({"zzz": 1.0})
    with pytest.raises(InvalidInputError, match="cannot be scaled by -1"):
        TYPICAL.scaled({"zz": -1.0})
    with pytest.raises(InvalidInputError, match="in order"):
        TYPICAL.path(device, [2.0, 1.0], seed=0)
    with pytest.raises(InvalidInputError, match="-3"):
        hours_of(-3)
    assert hours_of("month") == SPANS["month"]


@pytest.mark.parametrize(("name", "check"), checks_for("drift model"), ids=lambda c: str(c)[:40])
def test_conforms(name, check):
    check("typical")
