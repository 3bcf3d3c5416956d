"""The suite for attacks: the built-ins pass, and each fault is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod

from qnad_art.benchmark.attacks.catalogue import FGSM, AttackEntry, ball
from qnad_art.testing import check_attack

SOON = {
    "fgsm": {},
    "bim": {"max_iter": 4},
    "mim": {"max_iter": 4},
    "pgd": {"max_iter": 4},
    "autopgd-ce": {"max_iter": 5},
    "autopgd-dlr": {"max_iter": 5},
    "auto-conjugate-gradient": {"max_iter": 5},
    "rescaling-auto-conjugate-gradient": {"max_iter": 5},
    "universal-perturbation": {"max_iter": 1},
    "deepfool": {"max_iter": 10},
    "elastic-net": {"max_iter": 5, "binary_search_steps": 2},
    "jsma": {},
    "square": {"max_iter": 50},
}
LATER = {
    "autoattack": {"max_iter": 5, "max_queries": 5, "draws": 2},
    "autoattack-rand": {"max_iter": 5, "eot_iter": 2, "draws": 2},
    "virtual-adversarial": {"max_iter": 1},
    "cw-l0": {"max_iter": 3, "binary_search_steps": 2},
    "cw-l2": {"max_iter": 5, "binary_search_steps": 2},
    "cw-linf": {"max_iter": 20, "largest_const": 2.0},
    "newtonfool": {"max_iter": 40},
    "sign-opt": {"max_iter": 2, "query_limit": 200, "images": 4},
    "zoo": {"max_iter": 20, "nb_parallel": 32},
    "simba": {"max_iter": 40},
    "pixel": {"max_iter": 1},
    "spatial-transformation": {},
    # It works in whole grey levels, to which it also rounds the image.
    "threshold": {"max_iter": 1, "eps": 0.25},
    "hopskipjump": {"max_iter": 2, "max_eval": 50, "init_eval": 5},
    "boundary": {"max_iter": 3, "sample_size": 3, "num_trial": 3},
}


@pytest.mark.parametrize("attack", SOON)
def test_built_in_conforms(attack):
    check_attack(attack, **SOON[attack])


@pytest.mark.slow
@pytest.mark.parametrize("attack", LATER)
def test_expensive_built_in_conforms(attack):
    check_attack(attack, **LATER[attack])


class Flat(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return super().generate(x, y).reshape(len(x), -1)


class NotANumber(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return super().generate(x, y) * np.float32(np.nan)


class OutOfRange(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return 2 * super().generate(x, y)


class OneImageOnly(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return super().generate(x, y)[:1].repeat(len(x), 0) if len(x) > 1 else x[0]


class TooFar(FastGradientMethod):
    def __init__(self, estimator, eps=0.3, **settings):
        super().__init__(estimator, eps=1.5 * eps, eps_step=1.5 * eps, **settings)


class InPlace(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        x[:] = super().generate(x.copy(), y)
        return x


class ChangesWeights(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        with torch.no_grad():
            for parameter in self.estimator.model.parameters():
                parameter.mul_(1.01)
        return super().generate(x, y)


class Unseeded(FastGradientMethod):
    """Starts from a random share of the way."""

    def generate(self, x, y=None, **kwargs):
        share = np.random.default_rng().uniform(0.5, 1)
        return (x + share * (super().generate(x, y) - x)).astype(x.dtype)


class DoesNothing(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        self.estimator.loss_gradient(x, np.eye(10, dtype=np.float32)[y])
        return x.copy()


class LooksAtNothing(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return 1 - x.round()


def entry(attack, **changes):
    return replace(AttackEntry(f"{__name__}:{attack.__name__}", "gradient", "inf", ball), **changes)


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (FastGradientMethod, "is_an_attack_entry", "expected one of type AttackEntry"),
        (replace(FGSM, kind="white-box"), "is_an_attack_entry", "kind 'white-box'"),
        (replace(FGSM, norm="linf"), "is_an_attack_entry", "norm 'linf'"),
        (replace(FGSM, path="numpy:zeros"), "is_an_attack_entry", "found"),
        (entry(Flat), "examples_are_images", "(16, 64)"),
        (entry(NotANumber), "examples_are_images", "nan"),
        (entry(OutOfRange), "examples_are_images", "values from"),
        (entry(OneImageOnly), "examples_are_images", "shape (1, 8, 8)"),
        (entry(TooFar), "stays_within_its_budget", "at most ε = 0.3"),
        (entry(FastGradientMethod, norm="2"), "stays_within_its_budget", "L2 norm"),
        (entry(FastGradientMethod, norm=None), "stays_within_its_budget", "norm None"),
        (entry(InPlace), "leaves_inputs_and_classifier_as_they_were", "changed x"),
        (entry(ChangesWeights), "leaves_inputs_and_classifier_as_they_were", "weight"),
        (entry(Unseeded), "same_seed_same_examples", "two runs with one seed"),
        (entry(FastGradientMethod, kind="query"), "takes_gradients_only_if", "kind 'query'"),
        (entry(LooksAtNothing, budget=None), "takes_gradients_only_if", "no pass"),
        (entry(DoesNothing), "lowers_the_accuracy", "100.0% on the images"),
    ],
)
def test_fault_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_attack(faulty)
    message = str(caught.value)
    assert f"check {check}" in message
    assert words in message
    assert "; expected" in message
