"""The authors' attacks by name: what the benchmark asks of them, on every network."""

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
from qnad_art.benchmark.threats.victim import averaged, counted, reseed, seeded
from qnad_art.errors import InvalidInputError

EPS = 0.25
QUICK = {
    "pyautoattack-standard": {"max_iter": 5, "max_queries": 20},
    "pyautoattack-rand": {"max_iter": 5, "eot_iter": 3},
    "pyautoattack-apgd-ce": {"max_iter": 10},
    "pyautoattack-apgd-dlr": {"max_iter": 10},
    "pyautoattack-apgd-t": {"max_iter": 5},
    "pyautoattack-fab-t": {"max_iter": 5},
    "pyautoattack-square": {"max_queries": 200, "resc_schedule": True},
}
NAMES = sorted(QUICK)


def spec(name, **settings):
    return AttackSpec.parse({"name": name, **QUICK[name], **settings})


def made(name, classifier, data, *, eps=EPS, seed=0, **settings):
    with seeded(seed):
        reseed(classifier, seed)
        attack = spec(name, **settings).make(classifier, eps, batch_size=250)
        assert isinstance(attack, EvasionAttack)
        return attack.generate(data.x.copy(), data.y)


def accuracy(classifier, x, y):
    reseed(classifier, 1)
    return (classifier.predict(x).argmax(1) == y).mean()


def of_classes(count):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, count))
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), count, clip_values=(0.0, 1.0), device_type="cpu"
    )


def test_all_are_registered():
    points = entry_points(group="qnad_art.attacks")
    assert sorted(p.name for p in points if p.value.startswith("qnad_autoattack")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_valid_within_budget_and_repeatable(name, plain, noisy, digits):
    data = digits.take(24)
    for classifier in (plain, noisy):
        x = made(name, classifier, data)
        assert x.shape == data.x.shape
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert np.abs(x - data.x).max() <= EPS + 1e-6
        assert np.array_equal(x, made(name, classifier, data))
        assert accuracy(classifier, x, data.y) < accuracy(classifier, data.x, data.y) - 0.1


@pytest.mark.parametrize(("norm", "eps"), [("2", 0.5), ("1", 3.0)])
@pytest.mark.parametrize("name", ["pyautoattack-standard", "pyautoattack-apgd-ce"])
def test_other_norms(name, norm, eps, plain, digits):
    data = digits.take(24)
    x = made(name, plain, data, eps=eps, norm=norm)
    lengths = np.linalg.norm((x - data.x).reshape(len(x), -1), float(norm), axis=1)
    assert 0.5 * eps < lengths.max() <= eps * (1 + 1e-4)
    assert accuracy(plain, x, data.y) < accuracy(plain, data.x, data.y) - 0.1
    assert spec(name, norm=norm).norm == norm


def test_the_clock_is_no_seed_and_global_generators_go_on(plain, digits):
    """The authors' code seeds torch globally; that must not leak out."""
    data = digits.take(5)
    attack = spec("pyautoattack-square").make(plain, EPS, batch_size=250)
    with seeded(1):
        first = attack.generate(data.x, data.y)
        after_first = torch.rand(3)
    with seeded(2):
        attack.generate(data.x, data.y)
        after_other = torch.rand(3)
    with seeded(1):
        again = attack.generate(data.x, data.y)
    assert np.array_equal(first, again)
    assert not torch.equal(after_first, after_other)


def test_tracing_goes_on(plain, digits):
    """Else coverage and debuggers would see nothing after an attack."""
    kept = sys.gettrace()
    seen = []

    def trace(frame, event, argument):
        seen.append(event)

    sys.settrace(trace)
    try:
        made("pyautoattack-standard", plain, digits.take(2))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(kept)


def test_weights_and_their_gradients_are_left_alone(noisy, digits):
    made("pyautoattack-fab-t", noisy, digits.take(5))
    assert all(p.grad is None and p.requires_grad for p in noisy.model.parameters())


def test_an_average_is_not_averaged_again(noisy, digits):
    data = digits.take(4)
    settings = {"max_iter": 2, "eot_iter": 7}
    passes = {}
    for draws in (1, 3):
        with counted(noisy) as counts:
            made("pyautoattack-rand", averaged(noisy, draws), data, **settings)
        passes[draws] = counts.gradients
    # APGD-CE alone takes (steps + 1) gradients of 4 images, each of 7 draws, or of 3.
    assert passes[1] % 7 == 0
    assert passes[3] % 3 == 0
    assert passes[3] < passes[1]


def test_steps_and_queries_are_those_asked_for(noisy, plain, digits):
    data = digits.take(4)
    with counted(plain) as passes:
        made("pyautoattack-apgd-ce", plain, data, max_iter=9, best_loss=True)
    assert passes.gradients == 4 * (9 + 1)
    with counted(plain) as passes:
        made("pyautoattack-square", plain, data, max_queries=30, eps=0.001)
    assert passes.gradients == 0
    assert 4 * 30 <= passes.queries <= 4 * 34


@pytest.mark.parametrize(
    ("name", "classes"),
    [("pyautoattack-standard", 3), ("pyautoattack-apgd-t", 3), ("pyautoattack-rand", 2)],
)
def test_too_few_classes_are_refused(name, classes):
    with pytest.raises(InvalidInputError, match="classes or more"):
        spec(name).make(of_classes(classes), EPS, batch_size=10)


def test_four_classes_are_enough(digits):
    """Fewer than the nine targets of the authors."""
    classifier, x = of_classes(4), digits.x[:6]
    y = classifier.predict(x).argmax(1)
    attack = spec("pyautoattack-standard", max_iter=20).make(classifier, 0.3, batch_size=10)
    with seeded(0):
        found = attack.generate(x, y)
    assert (classifier.predict(found).argmax(1) != y).mean() > 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"max_iter": 0}, "max_iter is 0"), ({"norm": "3"}, "norm must be 'inf' or '2' or '1'")],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        spec("pyautoattack-standard", **settings)
