"""Victims: their draws, averages, surrogates, and what passes through them."""

from __future__ import annotations

import random

import art.config
import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, HopSkipJump
from art.defences.preprocessor import FeatureSqueezing
from torch import nn
from victims import Noisy, NoisyPredict, classifier, digits, network, noisy, quantum

from qnad_art.benchmark.threats.victim import (
    averaged,
    counted,
    derived,
    frozen,
    in_own_precision,
    is_stochastic,
    noise_sources,
    predictions,
    reseed,
    saturation,
    seeded,
    surrogate,
    unsaturated,
)
from qnad_art.network.module import SHOTS_PERCENTILE

X, Y = digits().x[:12], digits().y[:12]
LABELS = np.eye(10, dtype=np.float32)[Y]
STOCHASTIC = {"input noise": noisy, "shots": quantum}


@pytest.fixture(params=STOCHASTIC)
def victim(request):
    return STOCHASTIC[request.param]()


def test_gradient_of_an_average_is_the_mean_of_the_gradients(victim):
    reseed(victim, 5)
    single = [victim.class_gradient(X, label=3) for _ in range(4)]
    reseed(victim, 5)
    together = averaged(victim, 4).class_gradient(X, label=3)
    assert not np.allclose(single[0], single[1])
    np.testing.assert_allclose(together, np.mean(single, axis=0), atol=1e-6)


def test_prediction_of_an_average_is_the_mean_of_the_predictions(victim):
    reseed(victim, 5)
    single = [victim.predict(X) for _ in range(3)]
    reseed(victim, 5)
    np.testing.assert_allclose(
        averaged(victim, 3).predict(X), np.mean(single, axis=0), rtol=1e-5, atol=1e-5
    )


def test_an_average_keeps_everything_else(tmp_path, monkeypatch):
    monkeypatch.setattr(art.config, "ART_DATA_PATH", str(tmp_path))
    squeezing = FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=2)
    victim = classifier(Noisy(network()), NoisyPredict, preprocessing_defences=squeezing)
    average = averaged(victim, 3)
    assert type(average) is NoisyPredict
    assert average.preprocessing_defences == victim.preprocessing_defences
    assert np.array_equal(average.clip_values, victim.clip_values)
    assert average.loss is victim.loss
    assert average.model.module is victim.model
    assert victim.model.noisy  # and the original is as it was
    assert not list(tmp_path.iterdir())  # ART's own copy would have written files


def test_an_average_of_a_sequential_network():
    victim = classifier(network().layers)
    np.testing.assert_allclose(averaged(victim, 2).predict(X), victim.predict(X), atol=1e-6)


def test_an_average_in_a_frozen_draw_repeats_its_draws(victim):
    average = averaged(victim, 3)
    with frozen(victim):
        first, second = average.predict(X), average.predict(X)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, average.predict(X))


def test_surrogate_of_a_noisy_module_is_its_network():
    victim = noisy()
    np.testing.assert_array_equal(surrogate(victim).predict(X), classifier().predict(X))
    assert victim.model.noisy
    assert is_stochastic(victim, X)


def test_surrogate_of_shots_is_the_exact_expectation():
    victim, exact = quantum(shots=256), quantum(shots=None, percentile=SHOTS_PERCENTILE)
    np.testing.assert_array_equal(surrogate(victim).predict(X), exact.predict(X))
    np.testing.assert_array_equal(surrogate(averaged(victim, 5)).predict(X), exact.predict(X))
    assert victim.shots == 256


def test_unsaturated_gradients_leave_outputs_and_end_with_the_context():
    victim = quantum(shots=None, percentile=60)
    gradient, output = victim.loss_gradient(X, LABELS), victim.predict(X)
    with unsaturated(averaged(victim, 2)):
        through = victim.loss_gradient(X, LABELS)
        np.testing.assert_array_equal(victim.predict(X), output)
    assert not np.allclose(gradient, through)
    np.testing.assert_array_equal(victim.loss_gradient(X, LABELS), gradient)


def test_saturation_is_the_share_beyond_the_scale():
    assert saturation(quantum(shots=None, percentile=60), X) > 0.2
    assert saturation(quantum(shots=None), X) < 0.01
    assert saturation(classifier(), X) == 0


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (classifier, False),
        (lambda: quantum(shots=None), False),
        (noisy, True),
        (quantum, True),
        (lambda: classifier(kind=NoisyPredict), True),
    ],
)
def test_noise_is_found_by_trying(build, expected):
    assert is_stochastic(build(), X) is expected


def test_predictions_belong_to_their_seed(victim):
    first = predictions(victim, X, seed=1, batch_size=5)
    victim.predict(X)
    np.testing.assert_array_equal(predictions(victim, X, seed=1, batch_size=5), first)
    assert not np.array_equal(predictions(victim, X, seed=2, batch_size=5), first)


def test_every_source_of_noise_is_reseeded_with_a_seed_of_its_own():
    victim = classifier(Noisy(Noisy(network(), seed=1), seed=2))
    reseed(victim, 3)
    assert len({source.seed for source in noise_sources(victim)}) == 2


def test_passes_are_counted_with_and_without_gradients():
    victim = noisy()
    with counted(victim) as passes:
        victim.predict(X, batch_size=5)
        victim.loss_gradient(X[:7], LABELS[:7])
    assert (passes.gradients, passes.queries) == (7, 12)
    victim.predict(X)
    assert passes.queries == 12


def test_passes_of_averages_and_of_sequential_networks_are_counted():
    for victim in (noisy(), classifier(network().layers)):
        with counted(victim) as passes:
            averaged(victim, 3).predict(X)
            victim.loss_gradient(X, LABELS)
        assert (passes.gradients, passes.queries) == (12, 36)


def test_passes_of_classifiers_that_attacks_rebuild_are_counted():
    victim = noisy()
    with counted(victim) as passes:
        attack = AutoProjectedGradientDescent(
            victim,
            eps=0.05,
            eps_step=0.05,
            max_iter=3,
            loss_type="difference_logits_ratio",
            verbose=False,
        )
        attack.generate(X, Y)
    assert type(attack.estimator) is not type(victim) or attack.estimator is not victim
    assert passes.gradients > 0
    assert passes.queries > 0


def test_float64_of_an_attack_is_cast_for_the_network():
    victim = classifier()
    attack = HopSkipJump(victim, max_iter=1, max_eval=20, init_eval=5, verbose=False)
    with seeded(0), in_own_precision(victim):
        assert attack.generate(X[:2]).shape == X[:2].shape


def test_seeded_gives_the_global_generators_back():
    def state():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    with seeded(1):
        inside = state()
    with seeded(2):
        before = state()
        with seeded(1):
            assert state() == inside
        after = state()
    with seeded(2):
        assert (state(), state()) == (before, after)


def test_derived_seeds_differ_by_label_and_are_always_the_same():
    seeds = {derived(s, *labels) for s in (0, 1) for labels in [(), ("a",), ("a", 1), ("b", 1)]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived(7, "attack", 3) == derived(7, "attack", 3)


def test_surrogate_has_weights_of_its_own():
    victim = noisy()
    copied = surrogate(victim)
    with torch.no_grad():
        for parameter in copied.model.parameters():
            parameter.zero_()
    assert np.ptp(victim.predict(X)) > 0
    assert isinstance(copied.model, nn.Module)
