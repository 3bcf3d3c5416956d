"""Intervals and tests against known cases: tables, SciPy, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qnad_art.benchmark.statistics import (
    accuracy_interval,
    higher_by_chance,
    paired_difference,
    relative_improvement,
    wilson,
)
from qnad_art.errors import InvalidInputError

REPETITIONS = 1000
"""Of a coverage: its standard error is then 0.7 %."""


def outcomes(rng, images, draws, *, mean, correlation, common=0.0):
    """Beta-binomial (draws, images); ``common`` shifts whole draws, in units of probability."""
    size = 1 / correlation - 1
    rates = rng.beta(mean * size, (1 - mean) * size, images)
    shift = common * rng.choice([-1.0, 1.0], (draws, 1))
    return rng.random((draws, images)) < np.clip(rates + shift, 0, 1)


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3 (score, uncorrected).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombes_table(correct, images, low, high):
    found = wilson(correct, images)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.value == correct / images


def test_one_draw_has_wilsons_interval():
    correct = np.arange(60)[None] < 42
    assert accuracy_interval(correct) == wilson(42, 60)


@pytest.mark.parametrize(
    ("images", "draws", "mean", "correlation", "common"),
    [
        (100, 10, 0.6, 0.5, 0.0),
        (100, 10, 0.6, 0.1, 0.0),  # noise of single draws prevails: it must not count twice
        (200, 10, 0.9, 0.8, 0.0),
        (300, 5, 0.97, 0.5, 0.0),
        (100, 10, 0.6, 0.5, 0.1),  # all images of a draw have something in common
    ],
)
def test_coverage_over_images_and_draws(images, draws, mean, correlation, common):
    rng = np.random.default_rng(0)
    settings = {"mean": mean, "correlation": correlation, "common": common}
    truth = outcomes(rng, 20_000, 100, **settings).mean() if common else mean
    covered = 0
    for seed in range(REPETITIONS):
        found = outcomes(rng, images, draws, **settings)
        interval = accuracy_interval(found, seed=seed, resamples=400)
        covered += interval.low <= truth <= interval.high
    assert covered / REPETITIONS == pytest.approx(0.95, abs=0.02)


def test_images_alone_would_not_cover_what_draws_have_in_common():
    """That the simulation can tell: the same figures, with draws taken for independent."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        means = outcomes(rng, 200, 10, mean=0.5, correlation=0.2, common=0.15).mean(0)
        margin = 1.96 * means.std() / np.sqrt(means.size)
        covered += abs(means.mean() - 0.5) < margin
    assert covered / 300 < 0.8


def test_coverage_of_paired_differences():
    """Two defences on images whose difficulty they share."""
    rng, covered, gain = np.random.default_rng(0), 0, 0.1
    for seed in range(REPETITIONS):
        rates = rng.beta(2, 2, 120) * 0.9
        first = rng.random((8, 120)) < rates + gain
        second = rng.random((3, 120)) < rates
        found = paired_difference(first, second, seed=seed, resamples=400)
        covered += found.low <= gain <= found.high
    assert covered / REPETITIONS == pytest.approx(0.95, abs=0.02)


def test_intervals_against_scipys_bootstrap():
    rng = np.random.default_rng(3)
    first = outcomes(rng, 150, 20, mean=0.85, correlation=0.3)
    second = outcomes(rng, 150, 20, mean=0.7, correlation=0.3)
    for found, sample in [
        (accuracy_interval(first, resamples=20_000), first.mean(0)),
        (paired_difference(first, second, resamples=20_000), first.mean(0) - second.mean(0)),
    ]:
        known = stats.bootstrap(
            (sample,), np.mean, n_resamples=20_000, rng=np.random.default_rng(0)
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.003)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    rates = rng.random(200)
    first, second = (rng.random((50, 200)) < rates for _ in range(2))
    paired = paired_difference(first, second)
    apart = paired_difference(first, second[:, rng.permutation(200)])
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)


def test_differences_where_no_image_differs():
    right = np.ones((4, 50), dtype=bool)
    found = paired_difference(right, right)
    assert found.value == 0
    assert found.high == -found.low == wilson(0, 50).high
    assert paired_difference(right, ~right).value == paired_difference(right, ~right).high == 1


def test_accuracies_of_none_and_all_have_wilsons_interval():
    for correct in (np.ones((5, 40), dtype=bool), np.zeros((5, 40), dtype=bool)):
        known = wilson(40 * bool(correct.all()), 40)
        assert accuracy_interval(correct) == known


def test_every_image_alike_but_not_in_every_draw():
    correct = np.repeat(np.arange(4)[:, None] < 3, 40, axis=1)  # 3 of 4 draws, for all images
    found = accuracy_interval(correct)
    assert found.low < found.value == 0.75 < found.high


@given(st.integers(1, 6), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_intervals_hold_their_value_within_bounds(draws, images, rate, other, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.random((draws, images)) < rate, rng.random((2, images)) < other
    alone, apart = accuracy_interval(first, seed=seed), paired_difference(first, second, seed=seed)
    assert 0 <= alone.low <= alone.value <= alone.high <= 1
    assert -1 <= apart.low <= apart.value <= apart.high <= 1
    assert alone == accuracy_interval(first, seed=seed)


def test_permutation_test_is_mcnemars_for_single_draws():
    first, second = np.zeros((1, 100), dtype=bool), np.zeros((1, 100), dtype=bool)
    first[0, :14], second[0, 14:19] = True, True
    known = stats.binomtest(14, 19, alternative="greater").pvalue
    assert higher_by_chance(first, second) == pytest.approx(known, rel=0.05)
    assert higher_by_chance(second, first) == 1


def test_permutation_test_against_scipys():
    rng = np.random.default_rng(0)
    rates = rng.random(60)
    first, second = rng.random((5, 60)) < rates + 0.03, rng.random((4, 60)) < rates
    known = stats.permutation_test(
        (first.mean(0) - second.mean(0),),
        lambda sample, axis: sample.mean(axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=50_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert higher_by_chance(first, second) == pytest.approx(known, abs=0.01)


def test_false_alarms_of_the_permutation_test_are_as_rare_as_promised():
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(100):
        rates = rng.random(50)
        first, second = (rng.random((3, 50)) < rates for _ in range(2))
        alarms += higher_by_chance(first, second, seed=seed) < 0.05
    assert alarms / 100 < 0.12


def test_relative_improvement_is_the_papers():
    found = relative_improvement(0.67, 0.2)
    assert found.improvement == pytest.approx(2.35)
    assert found.difference == pytest.approx(0.47)
    assert found.meaningful


def test_relative_improvement_on_next_to_nothing_is_flagged():
    found = relative_improvement(0.5, 0.006)
    assert not found.meaningful
    assert found.improvement == pytest.approx(82.3, abs=0.1)
    assert relative_improvement(0.5, 0.0).improvement is None


def test_what_is_no_proportion_is_refused():
    with pytest.raises(InvalidInputError, match="3 of 2"):
        wilson(3, 2)
    with pytest.raises(InvalidInputError, match="draws, images"):
        accuracy_interval(np.ones(4, dtype=bool))
    with pytest.raises(InvalidInputError, match="same images"):
        paired_difference(np.ones((1, 4), dtype=bool), np.ones((1, 5), dtype=bool))
    with pytest.raises(InvalidInputError, match="0 to 1"):
        relative_improvement(1.2, 0.5)
