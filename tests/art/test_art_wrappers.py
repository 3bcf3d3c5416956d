"""What ART puts around a classifier, on the noisy one: smoothing, ensembles, postprocessors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from art.defences.postprocessor import HighConfidence, Rounded
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.classification import EnsembleClassifier
from art_attacks import reproducible
from art_fixtures import hardened, images, one_hot, plain
from torch import Tensor, nn

from qnad_art.estimator import QuantumExecutedClassifier

SHOTS, SCALE = 4096, 0.1


@pytest.fixture(autouse=True)
def _seeded():
    with reproducible():
        yield


def data(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return images().x[:count], images().y[:count]


def counted(classifier: QuantumExecutedClassifier) -> list[int]:
    passes: list[int] = []
    classifier.module.register_forward_hook(lambda *_: passes.append(1))
    return passes


def smoothed(classifier, samples: int = 20) -> PyTorchRandomizedSmoothing:
    """ART's smoothing around the network of ``classifier``."""
    return PyTorchRandomizedSmoothing(
        classifier.model,
        nn.CrossEntropyLoss(),
        classifier.input_shape,
        10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
        sample_size=samples,
        scale=SCALE,
    )


def test_smoothing_around_votes_over_the_noisy_network():
    classifier = hardened(shots=SHOTS)
    around, passes = smoothed(classifier), counted(classifier)
    x, y = data(20)
    votes = around.predict(x)
    assert len(passes) >= 20
    assert (votes.argmax(1) == y).mean() >= 0.8
    off = hardened(device="ideal")
    with reproducible():
        expected = smoothed(plain()).predict(x)
    with reproducible():
        np.testing.assert_array_equal(smoothed(off).predict(x), expected)


def test_smoothing_around_is_attacked_through_the_noise():
    classifier = hardened(shots=SHOTS)
    around = smoothed(classifier)
    x, y = data(3)
    passes = counted(classifier)
    gradient = around.loss_gradient(x, one_hot(y))
    assert passes
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    found = FastGradientMethod(around, eps=0.2).generate(x, one_hot(y))
    assert 0 < np.abs(found - x).max() <= 0.2 + 1e-6


class Smoothing(nn.Module):
    """Gaussian noise inside the network that is converted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + SCALE * torch.randn_like(x))


def test_smoothing_inside_is_converted_with_the_network():
    inside = hardened(smoothed(plain(model=Smoothing(plain().model))), shots=SHOTS)
    assert type(inside) is QuantumExecutedClassifier
    assert len(inside.module.layers) == 5
    x, y = data(20)
    draws = np.stack([inside.predict(x) for _ in range(8)])
    assert (draws.mean(0).argmax(1) == y).mean() >= 0.8
    with inside.frozen_draw():  # of the shot noise: what is left varies by the smoothing
        assert not np.array_equal(inside.predict(x), inside.predict(x))
    # From ART's smoothing the network is taken, not the votes: those are no module.
    taken = hardened(smoothed(plain()), device="ideal")
    np.testing.assert_allclose(taken.predict(x), plain().predict(x), rtol=1e-4, atol=1e-4)


def test_an_ensemble_of_noisy_and_plain_classifiers_is_their_weighted_sum():
    noisy, oracle = hardened(shots=SHOTS), plain()
    weights = np.array([0.75, 0.25])
    ensemble = EnsembleClassifier(
        [noisy, oracle], classifier_weights=weights, channels_first=True, clip_values=(0.0, 1.0)
    )
    x, y = data()
    with noisy.frozen_draw():
        expected = 0.75 * noisy.predict(x) + 0.25 * oracle.predict(x)
        np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5, atol=1e-5)
        parts = [c.loss_gradient(x, one_hot(y)) for c in (noisy, oracle)]
        expected = 0.75 * parts[0] + 0.25 * parts[1]
        found = ensemble.loss_gradient(x, one_hot(y))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(ensemble.predict(x), ensemble.predict(x))
    passes = counted(noisy)
    adversarial = FastGradientMethod(ensemble, eps=0.2).generate(x, one_hot(y))
    assert passes
    assert 0 < np.abs(adversarial - x).max() <= 0.2 + 1e-6


@pytest.mark.parametrize("postprocessor", [Rounded(1), HighConfidence(2.0, apply_predict=True)])
def test_postprocessors_act_on_the_noisy_outputs(postprocessor):
    x, y = data()
    defended = hardened(plain(postprocessing_defences=postprocessor), shots=SHOTS)
    assert defended.postprocessing_defences == [postprocessor]
    bare = QuantumExecutedClassifier(
        defended.model, defended.loss, defended.input_shape, 10, device_type="cpu"
    )
    with defended.frozen_draw():
        logits = bare.predict(x)
        np.testing.assert_array_equal(defended.predict(x), postprocessor(logits))
        assert not np.array_equal(defended.predict(x), logits)
        # ART's gradients are those before the postprocessor.
        expected = bare.loss_gradient(x, one_hot(y))
        np.testing.assert_array_equal(defended.loss_gradient(x, one_hot(y)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_classifier_goes_from_the_cpu_to_the_gpu():
    x, y = data()
    on_cpu = hardened()
    on_gpu = QuantumExecutedClassifier(
        hardened().model, nn.CrossEntropyLoss(), on_cpu.input_shape, 10, device_type="gpu"
    )
    assert on_gpu.device.type == "cuda"
    np.testing.assert_allclose(on_gpu.predict(x), on_cpu.predict(x), rtol=1e-3, atol=1e-3)
    gradients = [c.loss_gradient(x, one_hot(y)) for c in (on_gpu, on_cpu)]
    np.testing.assert_allclose(*gradients, rtol=1e-2, atol=1e-4)
    on_gpu.shots = SHOTS
    drawn = [on_gpu.predict(x), on_gpu.predict(x)]
    on_gpu.reseed(0)
    repeated = on_gpu.predict(x)
    on_gpu.reseed(0)
    assert not np.array_equal(*drawn)
    assert np.array_equal(on_gpu.predict(x), repeated)
