"""What several attacks leave together."""

import numpy as np
import pytest
from benchmark_results import attack, result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from qnad_art.benchmark.statistics.intervals import scored
from qnad_art.benchmark.statistics.worst import accuracy_at_worst, at_worst, gain_at_worst


def of(*outcomes, rung="adaptive"):
    return [result(attack(rung=rung), np.asarray(each, dtype=bool)) for each in outcomes]


def test_without_noise_an_image_counts_where_no_attack_breaks_it():
    found = at_worst(of([[1, 1, 0, 1, 0]], [[1, 0, 1, 1, 0]]))
    assert found.tolist() == [[1, 0, 0, 1, 0]]


def test_one_attack_is_what_it_is():
    (only,) = of([[1, 0, 1], [0, 0, 1]])
    assert at_worst([only]).tolist() == scored(only).tolist()


def test_the_worst_of_equal_attacks_is_not_the_luck_of_a_draw():
    """Attacks that are alike leave what each leaves; the lowest in each draw would be far below."""
    rng = np.random.default_rng(0)
    draws = rng.random((8, 3, 4000)) < 0.5
    found = at_worst(of(*draws)).mean()
    assert found == pytest.approx(0.5, abs=0.02)
    assert draws.all(0).mean() < 0.01


def test_every_image_is_under_the_attack_that_fools_it_most():
    """Half of the images fall to one attack in most draws, the others to the other."""
    rng = np.random.default_rng(0)
    odd = np.arange(4000) % 2 == 1
    one, other = (rng.random((20, 4000)) < np.where(who, 0.2, 0.7) for who in (odd, ~odd))
    assert one.mean() == pytest.approx(0.45, abs=0.01)
    assert at_worst(of(one, other)).mean() == pytest.approx(0.2, abs=0.01)


def test_an_attack_that_was_scored_on_few_draws_spoils_no_other():
    rng = np.random.default_rng(0)
    odd = np.arange(4000) % 2 == 1
    one, other = (rng.random((10, 4000)) < np.where(who, 0.2, 0.7) for who in (odd, ~odd))
    useless = rng.random((2, 4000)) < 0.95
    assert at_worst(of(one, other, useless)).mean() <= at_worst(of(one, other)).mean() < 0.23


def test_one_draw_of_a_noisy_network_is_left_to_chance():
    """Each of six attacks leaves a half, and which images is luck."""
    draws = np.random.default_rng(0).random((6, 1, 4000)) < 0.5
    noisy = [result(attack(), each, provenance={"shots": 64}) for each in draws]
    assert at_worst(noisy).mean() == pytest.approx(0.5, abs=0.03)
    assert at_worst(of(*draws)).mean() < 0.05


@pytest.mark.parametrize(("attacks", "spread"), [(2, 1.0), (4, 0.5), (4, 0.1)])
def test_the_interval_has_what_the_best_attack_of_every_image_leaves(attacks, spread):
    """Which is best cannot be known from three draws; the interval allows for it."""
    rng = np.random.default_rng(1)
    missed, gains = [], []
    for _ in range(40):
        ease = rng.normal(0, 1.5, 300)
        right = 1 / (1 + np.exp(-(ease + spread * rng.normal(size=(attacks, 300)))))
        best = right.min(0)
        results = of(*(rng.random((attacks, 3, 300)) < right[:, None]))
        found = accuracy_at_worst([results])
        missed.append(not found.low <= best.mean() <= found.high)
        plain = of(rng.random((1, 300)) < best)
        gains.append(gain_at_worst([results], [plain]).low > 0)
    assert np.mean(missed) <= 0.1
    assert np.mean(gains) <= 0.1


def test_one_result_alone_keeps_its_own_interval():
    (weak, strong) = of(np.ones((3, 50)), np.random.default_rng(0).random((3, 50)) < 0.5)
    assert accuracy_at_worst([[weak, strong]]) == strong.accuracy


def test_seeds_count_as_draws():
    rng = np.random.default_rng(0)
    alike = [of(rng.random((1, 500)) < 0.5) for _ in range(5)]
    apart = [of(rng.random((1, 500)) < share) for share in (0.3, 0.4, 0.5, 0.6, 0.7)]
    one, other = accuracy_at_worst(alike), accuracy_at_worst(apart)
    assert one.value == pytest.approx(0.5, abs=0.03)
    assert one.high - one.low < 0.1
    t = stats.t.ppf(0.975, 4) * np.std([0.3, 0.4, 0.5, 0.6, 0.7], ddof=1) / np.sqrt(5)
    assert other.high - other.low == pytest.approx(2 * t, rel=0.15)


@settings(max_examples=50, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12))),
)
def test_more_attacks_never_leave_more_than_any_of_them(correct):
    results = of(*correct)
    assert at_worst(results).mean() <= min(scored(r).mean() for r in results)
