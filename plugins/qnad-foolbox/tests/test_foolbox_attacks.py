"""Foolbox's attacks by name: what the benchmark asks of them, on every network."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.attacks.foreign import Network
from qnad_art.benchmark.threats.victim import counted, in_own_precision, reseed, seeded
from qnad_art.errors import DependencyError, InvalidInputError, UnknownNameError

NAMES = sorted(
    point.name for point in entry_points(group="qnad_art.attacks") if "foolbox" in point.value
)
EPS = {"inf": 0.1, "2": 1.0, "1": 6.0}
QUICK = {
    "foolbox-cw-l2": {"steps": 20, "binary_search_steps": 3},
    "foolbox-ead": {"steps": 20, "binary_search_steps": 3},
    "foolbox-salt-and-pepper": {"steps": 100},
    "foolbox-brendel-bethge-linf": {"steps": 40},
    "foolbox-brendel-bethge-l2": {"steps": 40},
}
COMPILED = "brendel-bethge"  # half a minute of compiling


def spec(name, **settings):
    return AttackSpec.parse({"name": name, **QUICK.get(name, {}), **settings})


def made(name, classifier, data, *, eps=None, batch_size=250, labels=True, **settings):
    attack = spec(name, **settings)
    budget = (eps or EPS[attack.norm]) if attack.budgeted else None
    with seeded(0):
        reseed(classifier, 0)
        art_attack = attack.make(classifier, budget, batch_size=batch_size)
        assert isinstance(art_attack, EvasionAttack)
        return art_attack.generate(data.x.copy(), data.y if labels else None)


def accuracy(classifier, x, y):
    reseed(classifier, 1)
    return (classifier.predict(x).argmax(1) == y).mean()


def each(names):
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow if COMPILED in n else ()) for n in names]


def test_all_are_registered():
    assert len(NAMES) == 17
    assert all(name.startswith("foolbox-") for name in NAMES)


@pytest.mark.parametrize("name", each(NAMES))
def test_examples_are_valid_and_repeatable(name, plain, noisy, digits):
    data = digits.take(12)
    attack = spec(name)
    for classifier in (plain, noisy):
        x = made(name, classifier, data)
        assert x.shape == data.x.shape
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert np.array_equal(x, made(name, classifier, data))
        assert accuracy(classifier, x, data.y) < accuracy(classifier, data.x, data.y)
        if attack.budgeted:
            change = (x - data.x).reshape(len(x), -1)
            lengths = np.linalg.norm(change, float(attack.norm), axis=1)
            assert lengths.max() <= EPS[attack.norm] * (1 + 1e-5)


@pytest.mark.parametrize("name", each([n for n in NAMES if not spec(n).budgeted]))
def test_the_smallest_perturbation_fools_and_is_small(name, plain, digits):
    data = digits.take(20)
    x = made(name, plain, data)
    assert accuracy(plain, x, data.y) <= 0.1
    limit = {"inf": 0.25, "2": 2.5, "1": 6.0, "0": 30.0}[spec(name).norm]
    change = (x - data.x).reshape(len(x), -1)
    assert np.median(np.linalg.norm(change, float(spec(name).norm), axis=1)) < limit


def test_gradients_run_through_the_circuits(noisy, digits):
    data = digits.take(10)
    with counted(noisy) as passes:
        made("foolbox-pgd", noisy, data, steps=7)
    assert passes.gradients == 70


def test_draws_of_noise_differ_from_step_to_step(noisy, digits):
    """The attack sees the noise: other draws, other examples."""
    data = digits.take(10)
    first = made("foolbox-mi-fgsm", noisy, data)
    with seeded(0):
        reseed(noisy, 7)
        second = spec("foolbox-mi-fgsm").make(noisy, 0.1, batch_size=250).generate(data.x, data.y)
    assert not np.array_equal(first, second)


def test_weights_are_left_alone(noisy, digits):
    before = {name: value.clone() for name, value in noisy.model.state_dict().items()}
    made("foolbox-pgd", noisy, digits.take(5), steps=3)
    assert all(torch.equal(before[name], value) for name, value in noisy.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in noisy.model.parameters())


def test_global_generators_are_the_only_randomness(plain, digits):
    data = digits.take(5)
    attack = spec("foolbox-pgd").make(plain, 0.1, batch_size=250)
    with seeded(1):
        first = attack.generate(data.x, data.y)
    with seeded(2):
        other = attack.generate(data.x, data.y)
    assert not np.array_equal(first, other)


def test_labels_may_be_rows_indices_or_missing(plain, digits):
    data = digits.take(30)
    right = plain.predict(data.x).argmax(1) == data.y
    indices = made("foolbox-fgsm", plain, data)
    attack = spec("foolbox-fgsm").make(plain, 0.1, batch_size=250)
    assert np.array_equal(indices, attack.generate(data.x, np.eye(10)[data.y]))
    assert np.array_equal(indices[right], attack.generate(data.x)[right])


def test_batches_of_any_size_and_none(plain, digits):
    data = digits.take(7)
    whole = made("foolbox-deepfool-linf", plain, data)
    assert np.allclose(made("foolbox-deepfool-linf", plain, data, batch_size=3), whole, atol=1e-5)
    attack = spec("foolbox-fgsm").make(plain, 0.1, batch_size=3)
    assert attack.generate(data.x[:0], data.y[:0]).shape == (0, 1, 8, 8)


def test_preprocessing_and_clip_values_are_part_of_the_network(network, plain, digits):
    """Images in other units, scaled back by ART's preprocessing: the same examples."""
    scaled = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        clip_values=(-1.0, 3.0),
        preprocessing=(np.float32(-1.0), np.float32(4.0)),
        device_type="cpu",
    )
    x, y = digits.x[:20], digits.y[:20]
    there = spec("foolbox-fgsm").make(scaled, 0.4, batch_size=250).generate(4 * x - 1, y)
    here = spec("foolbox-fgsm").make(plain, 0.1, batch_size=250).generate(x, y)
    assert np.allclose((there + 1) / 4, here, atol=1e-6)


def test_gradient_of_the_network_is_arts(network, digits):
    """Through a preprocessor without gradient too, where ART's estimate is the oracle."""
    from art.defences.preprocessor import FeatureSqueezing

    squeezed = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(reduction="sum"),
        (1, 8, 8),
        10,
        clip_values=(0.0, 1.0),
        preprocessing_defences=FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=3),
        preprocessing=(0.2, 0.5),
        device_type="cpu",
    )
    x, y = digits.x[:8], digits.y[:8]
    images = torch.as_tensor(x).requires_grad_()
    logits = Network(squeezed)(images)
    nn.functional.cross_entropy(logits, torch.as_tensor(y), reduction="sum").backward()
    with in_own_precision(squeezed):  # ART widens to float64
        assert np.allclose(logits.detach().numpy(), squeezed.predict(x), atol=1e-5)
        assert np.allclose(images.grad.numpy(), squeezed.loss_gradient(x, np.eye(10)[y]), atol=1e-5)


@pytest.mark.parametrize(
    ("clip_values", "words"),
    [(None, "no clip values"), ((np.zeros(64), np.linspace(1, 2, 64)), "pixel to pixel")],
)
def test_classifiers_without_one_range_are_refused(network, digits, clip_values, words):
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=clip_values, device_type="cpu"
    )
    attack = spec("foolbox-fgsm").make(classifier, 0.1, batch_size=10)
    with pytest.raises(InvalidInputError, match=words):
        attack.generate(digits.x[:2], digits.y[:2])


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ({"steps": 0}, InvalidInputError, "steps must be a whole number from 1"),
        ({"rel_stepsize": -1}, InvalidInputError, "rel_stepsize must be a number above 0"),
        ({"random_start": 2}, InvalidInputError, "random_start must be False or True"),
        ({"eps": 0.1}, UnknownNameError, "eps"),
        ({"stepps": 3}, UnknownNameError, "Did you mean 'steps'"),
    ],
)
def test_wrong_settings_are_named(value, error, words):
    with pytest.raises(error, match=words):
        AttackSpec.parse({"name": "foolbox-pgd", **value})


def test_without_numba_only_brendel_bethge_is_missing(monkeypatch, plain):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("qnad_foolbox.boundary.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install 'qnad-foolbox"):
        AttackSpec.parse("foolbox-brendel-bethge-l2").make(plain, None, batch_size=1)


def test_images_without_a_start_are_returned_as_they_are():
    """A network that says 3 to everything cannot be led astray."""
    pytest.importorskip("numba")

    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.eye(10)[3])

        def forward(self, x):
            return self.bias + 0 * x.sum((1, 2, 3))[:, None]

    classifier = PyTorchClassifier(
        Three(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    x = np.full((2, 1, 8, 8), 0.5, dtype=np.float32)
    attack = spec("foolbox-brendel-bethge-linf").make(classifier, None, batch_size=2)
    assert np.array_equal(attack.generate(x, np.array([3, 3])), x)
