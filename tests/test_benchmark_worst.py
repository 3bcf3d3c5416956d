"""What several attacks leave together."""

import numpy as np
import pytest
from benchmark_results import attack, result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qnad_art.benchmark.comparison import scored
from qnad_art.benchmark.worst import at_worst


def of(*outcomes, rung="adaptive"):
    return [result(attack(rung=rung), np.asarray(each, dtype=bool)) for each in outcomes]


def test_without_noise_an_image_counts_where_no_attack_breaks_it():
    found = at_worst(of([[1, 1, 0, 1, 0]], [[1, 0, 1, 1, 0]]))
    assert found.tolist() == [[1, 0, 0, 1, 0]]


def test_one_attack_is_what_it_is():
    (only,) = of([[1, 0, 1], [0, 0, 1]])
    assert at_worst([only]).tolist() == scored(only).tolist()


def test_who_asks_until_a_draw_fails_takes_the_image_in_every_draw():
    once = of([[1, 1, 0], [1, 1, 1]])
    (again,) = of([[1, 1, 1], [1, 0, 1], [1, 1, 1]], rung="persistent")
    assert at_worst([*once, again]).tolist() == [[1, 0, 0], [1, 0, 1]]


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


def test_attacks_scored_on_unequal_numbers_of_draws_count_on_those_that_all_have():
    more, fewer = np.ones((5, 3), dtype=bool), np.zeros((2, 3), dtype=bool)
    assert at_worst(of(more, fewer)).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12))),
)
def test_more_attacks_never_leave_more_than_any_of_them(correct):
    results = of(*correct)
    assert at_worst(results).mean() <= min(scored(r).mean() for r in results)
