"""ART's FGSM and PGD against Foolbox's on one network: same start, same steps, same examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from foolbox.attacks import LinfProjectedGradientDescentAttack
from scipy.stats import binomtest

from qnad_art.benchmark.threats.victim import reseed, seeded
from qnad_foolbox.attacks import Fgsm, Pgd

EPS, STEPS = 0.1, 8


def art_pgd(classifier, *, random_init=0):
    return ProjectedGradientDescent(
        classifier,
        eps=EPS,
        eps_step=EPS / 4,
        max_iter=STEPS,
        num_random_init=random_init,
        batch_size=250,
        verbose=False,
    )


def foolbox_pgd(classifier, *, random_start=False):
    return Pgd(classifier, eps=EPS, steps=STEPS, rel_stepsize=0.25, random_start=random_start)


def same(a, b):
    """Share of pixels that agree; a gradient of rounding size may have either sign."""
    return np.isclose(a, b, rtol=0, atol=1e-6).mean()


@pytest.mark.parametrize("which", ["plain", "expectation"])
def test_fgsm_is_the_same(which, request, digits):
    classifier = request.getfixturevalue(which)
    by_art = FastGradientMethod(classifier, eps=EPS, batch_size=250).generate(digits.x, digits.y)
    by_foolbox = Fgsm(classifier, eps=EPS).generate(digits.x, digits.y)
    assert same(by_art, by_foolbox) == 1
    assert same(by_art, digits.x) < 0.5


@pytest.mark.parametrize("which", ["plain", "expectation"])
def test_pgd_from_the_image_is_the_same(which, request, digits):
    classifier = request.getfixturevalue(which)
    by_art = art_pgd(classifier).generate(digits.x, digits.y)
    by_foolbox = foolbox_pgd(classifier).generate(digits.x, digits.y)
    assert same(by_art, by_foolbox) == 1
    one_step = Fgsm(classifier, eps=EPS).generate(digits.x, digits.y)
    assert same(one_step, by_foolbox) < 0.99


def test_pgd_from_a_random_start_is_the_same(plain, digits, monkeypatch):
    """Foolbox draws from torch and ART from NumPy: Foolbox is given ART's draw."""
    with seeded(3):
        by_art = art_pgd(plain, random_init=1).generate(digits.x, digits.y)
    with seeded(3):
        start = np.random.uniform(-EPS, EPS, (len(digits.x), 64))  # noqa: NPY002
    drawn = torch.as_tensor(start.reshape(digits.x.shape).astype(np.float32))
    monkeypatch.setattr(
        LinfProjectedGradientDescentAttack,
        "get_random_start",
        lambda self, x0, epsilon: x0 + type(x0)(drawn),
    )
    by_foolbox = foolbox_pgd(plain, random_start=True).generate(digits.x, digits.y)
    assert same(by_art, by_foolbox) == 1
    assert same(by_art, art_pgd(plain).generate(digits.x, digits.y)) < 0.99


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_under_shots_both_are_equally_strong(attack, noisy, digits):
    """Each draws noise of its own, so examples differ; what is left must not (binomial test)."""
    if attack == "fgsm":
        pair = FastGradientMethod(noisy, eps=EPS, batch_size=250), Fgsm(noisy, eps=EPS)
    else:
        pair = art_pgd(noisy), foolbox_pgd(noisy)
    right = []
    for number, one in enumerate(pair):
        reseed(noisy, number)
        x = one.generate(digits.x, digits.y)
        reseed(noisy, 10 + number)
        right.append(noisy.predict(x).argmax(1) == digits.y)
    only_art, only_foolbox = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
    assert 0.1 < right[0].mean() < 0.9, "the test needs some of both"
    assert only_art + only_foolbox > 0, "different draws"
    assert binomtest(only_art, only_art + only_foolbox).pvalue > 0.01
