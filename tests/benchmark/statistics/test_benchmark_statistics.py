"""Intervals and tests against known cases: tables, SciPy, and coverage by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qnad_art.benchmark.statistics.intervals import (
    PERMUTATIONS,
    accuracy_interval,
    combined_difference,
    higher_by_chance,
    paired_difference,
    relative_improvement,
    wilson,
)
from qnad_art.benchmark.statistics.paired import score_ends, sign_ends
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


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("correct", "images"), [(0, 1), (1, 1), (3, 40), (38, 40)])
def test_wilson_solves_its_equation(correct, images, level):
    """The ends are the rates p at which (share - p)² = z² p (1 - p) / n, where in (0, 1)."""
    found, z = wilson(correct, images, level=level), stats.norm.isf((1 - level) / 2)
    for end in (found.low, found.high):
        assert (found.value - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / images)
    assert found.low < found.high
    assert wilson(correct, images, level=0.95) == wilson(correct, images)


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
    assert 0.93 <= covered / REPETITIONS <= 0.975  # t for three draws errs on the wide side


def scipys_bootstrap(values, level=0.95):
    return stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        rng=np.random.default_rng(0),
    ).confidence_interval


def assert_hardly_wider(found, known):
    """The bootstrap's interval, or one that allows for images not seen: up to 20 % wider."""
    near = 0.02 * (known.high - known.low)
    assert found.low < known.low + near
    assert found.high > known.high - near
    assert found.high - found.low < 1.2 * (known.high - known.low)


def test_accuracies_against_scipys_bootstrap():
    sample = outcomes(np.random.default_rng(3), 150, 20, mean=0.85, correlation=0.3)
    found, known = accuracy_interval(sample, resamples=20_000), scipys_bootstrap(sample.mean(0))
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.003)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_differences_against_scipys_bootstrap(level):
    rng = np.random.default_rng(3)
    first, second = (outcomes(rng, 150, 20, mean=m, correlation=0.3) for m in (0.85, 0.7))
    found = paired_difference(first, second, resamples=20_000, level=level)
    assert_hardly_wider(found, scipys_bootstrap(first.mean(0) - second.mean(0), level))


def differing(up, down, images):
    """Single draws: ``up`` images that only the first gets right, ``down`` only the second."""
    order = np.arange(images)[None]
    return order < up, (order >= up) & (order < up + down)


@pytest.mark.parametrize(
    ("up", "down", "images", "level", "low", "high"),
    [
        # Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850: airways of 21 children.
        (1, 7, 21, 0.95, -0.517, -0.026),
        # scoreci.mp(25, 28, 618) of the R package PropCIs.
        (28, 25, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_score_intervals_against_published_ones(up, down, images, level, low, high):
    first, second = differing(up, down, images)
    found = score_ends(first[0] - second[0].astype(float), (-1, 1), level)
    assert found == pytest.approx((low, high), abs=6e-4 if images == 21 else 6e-5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.9995])
@pytest.mark.parametrize(
    ("up", "down", "images"), [(3, 0, 1000), (0, 6, 1000), (4, 9, 50), (5, 0, 5), (6, 4, 10)]
)
def test_score_intervals_solve_tangos_equation(up, down, images, level):
    """With the likeliest share of images down, given the difference, in closed form (eq. 8)."""
    first, second = differing(up, down, images)
    ends = score_ends(first[0] - second[0].astype(float), (-1, 1), level)
    for end in ends:
        b = -up - down + (2 * images - up + down) * end
        c = -down * end * (1 - end)
        share = (np.sqrt(b**2 - 8 * images * c) - b) / (4 * images)
        variance = images * (2 * share + end * (1 - end))
        score = (up - down - images * end) ** 2
        z = stats.norm.isf((1 - level) / 2)
        assert score == pytest.approx(z**2 * variance, rel=1e-6, abs=1e-9)
    assert -1 <= ends[0] < (up - down) / images <= ends[1] <= 1


def test_where_nothing_differs_the_score_is_wilsons():
    """As far as images that differ as much as they can may have gone unseen."""
    unseen = wilson(0, 40, level=0.9).high
    found = score_ends(np.full(40, 0.25), (-0.5, 2), 0.9)
    assert found == pytest.approx((0.25 - 0.75 * unseen, 0.25 + 1.75 * unseen))
    assert score_ends(np.full(40, 2.0), (-0.5, 2), 0.9)[1] == 2


@pytest.mark.parametrize(("up", "down"), [(3, 0), (0, 6), (9, 2), (40, 60)])
def test_signs_of_single_draws_have_clopper_and_pearsons_interval(up, down):
    first, second = differing(up, down, 200)
    known = stats.binomtest(up, up + down).proportion_ci(0.99, method="exact")
    found = sign_ends(first[0] - second[0].astype(float), 0.99)
    share = (up + down) / 200
    assert found == pytest.approx([share * (2 * end - 1) for end in known])


def test_images_that_differ_unequally_count_as_fewer_equal_ones():
    """One by 0.3 and three by 0.1 tell as much as three alike: (Σ size)² / Σ size² = 3."""
    low = stats.binomtest(3, 3).proportion_ci(0.95, method="exact").low
    values = np.array([0.3, 0.1, 0.1, 0.1, 0.0, 0.0])
    assert sign_ends(values, 0.95) == pytest.approx((0.1 * (2 * low - 1), 0.1))
    assert sign_ends(-values, 0.95) == pytest.approx((-0.1, 0.1 * (1 - 2 * low)))
    assert sign_ends(np.zeros(9), 0.95) == (0, 0)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_zero_is_left_out_where_mcnemars_exact_test_leaves_it_out(level):
    for up, down in itertools.product(range(0, 24), (0, 1, 2, 5)):
        found = paired_difference(*differing(up, down, 1000), level=level)
        known = stats.binomtest(up, max(up + down, 1)).pvalue if up + down else 1.0
        assert (found.low > 0 or found.high < 0) == (known <= 1 - level)


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("expected", [2, 5])
def test_false_alarms_are_rare_where_few_images_differ(draws, expected):
    """Two defences that are alike but for rare images that one of them gets wrong at times."""
    rng, images, alarms = np.random.default_rng(0), 1000, 0
    for seed in range(400):
        kind = rng.choice(3, images, p=[1 - 2 * expected / images, *2 * [expected / images]])
        rates = np.ones(images) if draws == 1 else rng.random(images)
        wrong = rng.random((2, draws, images)) < rates
        first, second = (~(wrong[side] & (kind == side + 1)) for side in (0, 1))
        found = paired_difference(first, second, seed=seed, resamples=400)
        alarms += not found.low <= 0 <= found.high
    assert alarms / 400 < 0.05


def test_images_not_seen_may_go_either_way_in_several_draws_too():
    """Three images that differ, in three of four draws, all in favour of the first."""
    right = np.ones((4, 1000), dtype=bool)
    second = right.copy()
    second[:3, :3] = False
    found = paired_difference(right, second)
    assert found.value == pytest.approx(0.00225)
    assert found.low < 0
    second[:3, :9] = False
    assert paired_difference(right, second).low > 0


def common_variance(correct):
    """Variance of a mean over draws that share something, by analysis of variance (two-way)."""
    draws, images = correct.shape
    by_image, by_draw, mean = correct.mean(0), correct.mean(1), correct.mean()
    error = ((correct - by_image - by_draw[:, None] + mean) ** 2).sum()
    error /= (draws - 1) * (images - 1)
    between = images * ((by_draw - mean) ** 2).sum() / (draws - 1)
    return by_image.var() / images + max(between - error, 0) / images / draws


@pytest.mark.parametrize("draws", [2, 3, 20])
def test_width_is_that_of_an_analysis_of_variance(draws):
    """Of random images and, where draws share something, random draws (Student's t)."""
    rng = np.random.default_rng(draws)
    settings = {"mean": 0.6, "correlation": 0.3}
    first = outcomes(rng, 400, draws, **settings, common=0.12)
    second = outcomes(rng, 400, 7, **settings, common=0.05)
    variances = [common_variance(part) for part in (first, second)]
    assert variances[0] > 1.5 * first.mean(0).var() / 400  # draws matter
    alone = accuracy_interval(first, resamples=20_000)
    # Apart from the images', the variances of a difference add up.
    shared = [v - p.mean(0).var() / 400 for v, p in zip(variances, (first, second), strict=True)]
    weighted = 2 * first.mean(0) - 0.5 * second.mean(0)
    both = combined_difference([(2, first), (-0.5, second)], resamples=20_000)
    parts = [
        rng.standard_t(df, 200_000) * v**0.5 for df, v in zip((draws - 1, 6), shared, strict=True)
    ]
    images = rng.normal(size=200_000)
    alone_as = images * (first.mean(0).var() / 400) ** 0.5 + parts[0]
    both_as = images * (weighted.var() / 400) ** 0.5 + 2 * parts[0] - 0.5 * parts[1]
    for found, sample, most in ((alone, alone_as, 1.0), (both, both_as, 2.5)):
        width = min(np.diff(np.quantile(sample, [0.025, 0.975])).item(), most)
        assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert both.value == pytest.approx(weighted.mean())


def test_what_draws_share_is_told_from_images_that_differ():
    """Images differ much more than draws do, and both count: to 2 % in the width."""
    rng = np.random.default_rng(1)
    rates = rng.beta(0.5, 0.5, 40)
    shift = 0.12 * np.resize([-1, 1], 8)[:, None]
    correct = rng.random((8, 40)) < np.clip(rates + shift, 0, 1)
    found = accuracy_interval(correct, resamples=20_000)
    images = correct.mean(0).var() / 40
    shared = (common_variance(correct) - images) ** 0.5 * rng.standard_t(7, 200_000)
    sample = shared + rng.normal(size=200_000) * images**0.5
    expected = np.diff(np.quantile(sample, [0.025, 0.975])).item()
    assert found.high - found.low == pytest.approx(expected, rel=0.02)


def test_seed_and_resamples_are_those_asked_for():
    """Where what draws have in common makes the bootstrap the widest."""
    rng = np.random.default_rng(3)
    first, second = (outcomes(rng, 90, 5, mean=m, correlation=0.3, common=0.2) for m in (0.7, 0.5))
    parts = [(1.0, first), (-1.0, second)]
    usual = combined_difference(parts, seed=0, resamples=2000, level=0.95)
    assert combined_difference(parts) == paired_difference(first, second) == usual
    assert combined_difference(parts, seed=1) == paired_difference(first, second, seed=1) != usual
    assert combined_difference(parts, resamples=500) != usual
    assert accuracy_interval(first) == accuracy_interval(first, seed=0, resamples=2000)
    assert accuracy_interval(first) != accuracy_interval(first, seed=1)


def test_skewed_accuracies_against_scipys_bootstrap():
    """One image in twelve is ever misjudged, where acceleration moves both ends."""
    rng = np.random.default_rng(5)
    rates = np.where(np.arange(36) % 12 == 0, 0.2, 1.0)
    correct = rng.random((10, 36)) < rates
    found = accuracy_interval(correct, resamples=20_000)
    known = stats.bootstrap(
        (correct.mean(0),), np.mean, n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.006)


@pytest.mark.parametrize("resamples", [1, 2, 3])
def test_few_resamples_have_an_interval_too(resamples):
    """All may lie on one side of the mean, infinitely biased but for a bound on that."""
    correct = np.random.default_rng(0).random((3, 12)) < 0.7
    for seed in range(8):
        found = accuracy_interval(correct, seed=seed, resamples=resamples)
        assert 0 <= found.low <= found.high <= 1


def test_a_sum_of_accuracies_stays_within_what_it_can_be():
    """Three parts in [-0.5, 3]; all images alike, and others may be as far as can be."""
    right = np.ones((2, 30), dtype=bool)
    half = right.copy()
    half[0] = False
    parts = [(2, right), (1, ~right), (-0.5, half)]
    found = combined_difference(parts, level=0.9)
    unseen = wilson(0, 30, level=0.9).high
    signs = stats.binomtest(30, 30).proportion_ci(0.9, method="exact")
    assert found.value == 1.75
    assert found.high == pytest.approx(1.75 + 1.25 * unseen)
    assert found.low == pytest.approx(1.75 * (2 * signs.low - 1))
    assert combined_difference([(2, right), (-0.5, ~right)]).high == 2
    assert combined_difference([(2, ~right), (-0.5, right)]).low == -0.5


def test_differences_within_rounding_are_none():
    """0.3 - 0.1 - 0.2 of the draws, for every image."""
    three, one, two = (np.repeat(np.arange(10)[:, None] < n, 50, axis=1) for n in (3, 1, 2))
    found = combined_difference([(1, three), (-1, one), (-1, two)])
    unseen = wilson(0, 50).high
    assert (found.low, found.high) == pytest.approx((-2 * unseen, unseen))


def test_the_difference_from_never_right_is_the_accuracy():
    """Ends too, where one of three draws is far below the others and ends are unlike."""
    rng = np.random.default_rng(0)
    correct = rng.random((3, 200)) < np.array([0.8, 0.8, 0.5])[:, None]
    alone = accuracy_interval(correct)
    apart = paired_difference(correct, np.zeros((1, 200), dtype=bool))
    assert (apart.low, apart.high) == pytest.approx((alone.low, alone.high))
    below, above = alone.value - alone.low, alone.high - alone.value
    assert abs(below - above) > 0.01


def test_an_interval_ends_where_accuracies_do():
    """Few images of which nearly all are always right, less their opposite: near 1 + 1."""
    correct = np.ones((3, 9), dtype=bool)
    correct[0, 0] = False
    assert accuracy_interval(correct).high <= 1
    assert accuracy_interval(~correct).low >= 0
    found = combined_difference([(2.0, correct), (-1.0, ~correct)])
    assert found.value < found.high <= 2
    found = combined_difference([(-2.0, correct), (1.0, ~correct)])
    assert -2 <= found.low < found.value


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
    assert found.high == pytest.approx(wilson(0, 50).high)
    assert found.low == -found.high
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


def test_permutation_test_counts_every_way_to_flip_signs():
    """Ten images that differ by a, two by b: all 2¹² ways, without an approximation."""
    first, second = np.zeros((4, 40), dtype=bool), np.zeros((4, 40), dtype=bool)
    first[:1, :7] = True
    second[:1, 7:10] = True
    first[:, 10:12] = True
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    sums = signs @ ([1] * 10 + [4] * 2)
    known = (sums >= 7 - 3 + 8).mean()
    assert higher_by_chance(first, second) == pytest.approx(known, abs=0.002)
    assert higher_by_chance(first, second) == higher_by_chance(first, second, seed=0)
    assert higher_by_chance(first, second) != higher_by_chance(first, second, seed=1)


def test_a_p_value_is_never_zero():
    always, never = np.ones((2, 60), dtype=bool), np.zeros((1, 60), dtype=bool)
    assert higher_by_chance(always, never) == 1 / (PERMUTATIONS + 1) == 1e-5
    assert higher_by_chance(always, always) == 1
    half = np.arange(60)[None] < 30
    assert higher_by_chance(half, ~half) == higher_by_chance(never, always) == 1
    assert higher_by_chance(always[:, :1], never[:, :1]) == pytest.approx(0.5, abs=0.01)


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


def test_relative_improvement_takes_every_accuracy():
    found = relative_improvement(1, 1)
    assert (found.defended, found.plain, found.difference, found.improvement) == (1, 1, 0, 0)
    assert relative_improvement(0, 0.05).meaningful
    assert relative_improvement(0, 0.05).improvement == -1


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (lambda: wilson(3, 2), "3 of 2 is not a proportion"),
        (lambda: wilson(-1, 2), "-1 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: accuracy_interval(np.ones(4, dtype=bool)), r"shape \(4,\); expected \(draws, im"),
        (lambda: accuracy_interval(np.ones((0, 4), dtype=bool)), r"\(0, 4\).*at least one of each"),
        (lambda: paired_difference(*unequal()), "4 images against 5: pairs need the same images"),
        (lambda: higher_by_chance(*unequal()), "4 images against 5"),
        (
            lambda: relative_improvement(1.2, 0.5),
            "1.2 is not an accuracy; give a number",
        ),
        (lambda: relative_improvement(0.5, -0.1), "-0.1 is not an accuracy"),
    ],
)
def test_what_is_no_proportion_is_refused(refused, says):
    with pytest.raises(InvalidInputError, match=says):
        refused()


def unequal():
    return np.ones((1, 4), dtype=bool), np.ones((1, 5), dtype=bool)
