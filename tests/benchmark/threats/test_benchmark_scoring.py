"""Scoring: fresh draws, votes, and one draw where there is no noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from victims import NoisyPredict, classifier, digits, noisy, quantum

from qnad_art.benchmark.threats.scoring import Score, score
from qnad_art.errors import InvalidInputError

X, Y = digits().x[:40], digits().y[:40]


def scored(predicted, y):
    predicted = np.asarray(predicted)
    return Score(np.asarray(y), predicted, np.ones(predicted.shape, dtype=np.float32))


def test_a_deterministic_classifier_is_scored_on_one_draw():
    victim = classifier()
    found = score(victim, X, Y, draws=10, seed=0)
    assert found.draws == 1
    np.testing.assert_array_equal(found.predicted[0], victim.predict(X).argmax(1))
    np.testing.assert_allclose(
        found.confidence[0], softmax(victim.predict(X), axis=1)[np.arange(40), Y], rtol=1e-4
    )


@pytest.mark.parametrize(
    "build", [noisy, lambda: quantum(shots=64), lambda: classifier(kind=NoisyPredict)]
)
def test_noise_is_scored_on_fresh_draws_that_belong_to_the_seed(build):
    victim = build()
    found = score(victim, X, Y, draws=5, seed=1)
    assert found.draws == 5
    assert len({row.tobytes() for row in found.confidence}) == 5
    victim.predict(X)
    again = score(build(), X, Y, draws=5, seed=1)
    np.testing.assert_array_equal(again.predicted, found.predicted)
    other = score(victim, X, Y, draws=5, seed=2)
    assert not np.array_equal(other.confidence, found.confidence)


def test_more_draws_begin_with_the_same():
    few, many = (score(noisy(), X, Y, draws=draws, seed=1) for draws in (2, 4))
    np.testing.assert_array_equal(few.predicted, many.predicted[:2])


def test_scoring_leaves_the_global_generators_alone():
    victim = classifier(kind=NoisyPredict)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    there = torch.get_rng_state()
    score(victim, X, Y, draws=3, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), there)


def test_majority_needs_more_draws_than_any_other_class():
    predicted = np.array([[1, 1, 1, 2], [1, 1, 0, 3], [2, 0, 0, 1], [2, 1, 2, 1]])
    found = scored(predicted, [1, 1, 1, 1])
    #            tie      3 to 1  1 to 2  2 to 1 and 1
    assert found.votes.tolist() == [False, True, False, True]
    assert found.every_draw.tolist() == [False, False, False, False]
    assert found.accuracy == 8 / 16


def test_all_right_and_all_wrong():
    found = scored([[0, 1], [0, 2]], [0, 0])
    assert found.votes.tolist() == [True, False]
    assert found.every_draw.tolist() == [True, False]
    assert scored([[0, 0]], [0, 0]).votes.all()


@pytest.mark.parametrize(("x", "y", "draws"), [(X[:0], Y[:0], 1), (X, Y[:3], 1), (X, Y, 0)])
def test_nothing_to_score_is_refused(x, y, draws):
    with pytest.raises(InvalidInputError, match="draws"):
        score(classifier(), x, y, draws=draws, seed=0)
