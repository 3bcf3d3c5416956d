"""The suite for defences: the built-ins pass, and each fault is found."""

from __future__ import annotations

import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ConfigDict
from torch import nn

from qnad_art.benchmark.defences import defence_names
from qnad_art.benchmark.defences.base import Defence
from qnad_art.benchmark.defences.common import copy_of
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.testing import check_defence, checks_for
from qnad_art.testing.specimens import digits, digits_classifier, install_random_crosstalk

SOON = {"epochs": 1, "batch_size": 64}
QUICK = {
    "inherent": {"shots": 4096},
    "qnad-tuned": {"epochs": 1, "attack_steps": 1, "epsilon": 0.1},
    "madry": {**SOON, "attack_steps": 1},
    "trades": {**SOON, "attack_steps": 1},
    "awp": {**SOON, "attack_steps": 1},
    "fast-adversarial-training": SOON,
    "gaussian-augmentation": SOON,
    "defensive-distillation": SOON,
    "finetune": {"epochs": 1, "attack_steps": 1},
    "randomized-smoothing": {"samples": 3},
    "rse": {**SOON, "samples": 3},
    "pni": {**SOON, "attack_steps": 1},
    "gaussian-control": {"of": {"name": "qnad-uniform", "shots": 4096}, "images": 64},
}


@pytest.mark.parametrize("defence", [n for n in defence_names() if n not in ("none", "hardened")])
def test_built_in_conforms(defence):
    check_defence(defence, **QUICK.get(defence, {}))


def test_a_hardened_folder_conforms(tmp_path):
    saved = QuantumExecutedClassifier.from_art(digits_classifier(), digits("train").x, shots=4096)
    install_random_crosstalk(saved.module, most=2)
    saved.save("hardened", str(tmp_path))
    check_defence("hardened", folder=str(tmp_path / "hardened"))


@pytest.mark.parametrize(("name", "check"), checks_for("defence"))
def test_checks_run_one_by_one(name, check):
    check("qnad-random", shots=2048)


class Shrink(Defence):
    """Correct: scales the logits by a factor that fit draws."""

    name: ClassVar[str] = "shrink"
    low: float = 0.5

    def fit(self, classifier, work, folder):
        factor = np.random.default_rng(work.seed).uniform(self.low, 1)
        (folder / "factor.json").write_text(repr(float(factor)))

    def apply(self, classifier, work, folder):
        copied = copy_of(classifier)
        return with_module(
            copied, Scaled(copied.model, float((folder / "factor.json").read_text()))
        )


class Scaled(nn.Module):
    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x):
        return self.factor * self.network(x)


def test_defence_that_is_not_registered_conforms():
    check_defence(Shrink, low=0.25)


class Nameless(Shrink):
    name: ClassVar[str] = ""


class ForgetsSettings(Shrink):
    def model_dump(self, **options):
        return {}


class TakesAnything(Shrink):
    model_config = ConfigDict(extra="ignore")


class Changeable(Shrink):
    model_config = ConfigDict(frozen=False)


class GivesAModule(Shrink):
    def apply(self, classifier, work, folder):
        return classifier.model


class Halves(Shrink):
    """Logits of half the classes."""

    def apply(self, classifier, work, folder):
        copied = copy_of(classifier)
        return with_module(copied, nn.Sequential(copied.model, nn.Linear(10, 5)))


class UsesTheDevice(Shrink):
    def fit(self, classifier, work, folder):
        work.device.save(folder / "device.json")
        super().fit(classifier, work, folder)


class InPlace(Shrink):
    def apply(self, classifier, work, folder):
        return classifier


class ChangesWeights(Shrink):
    def fit(self, classifier, work, folder):
        with torch.no_grad():
            next(classifier.model.parameters()).mul_(0.9)
        super().fit(classifier, work, folder)


class ChangesData(Shrink):
    def fit(self, classifier, work, folder):
        work.training.x[:] = 0
        super().fit(classifier, work, folder)


class TrainsTheGiven(Shrink):
    def fit(self, classifier, work, folder):
        classifier.model.train()
        super().fit(classifier, work, folder)


class DrawsInApply(Shrink):
    def apply(self, classifier, work, folder):
        copied = copy_of(classifier)
        return with_module(copied, Scaled(copied.model, np.random.default_rng().uniform(0.5, 1)))


class Unseeded(Shrink):
    def fit(self, classifier, work, folder):
        (folder / "factor.json").write_text(repr(float(np.random.default_rng().uniform(0.5, 1))))


class SeedsEverybody(Shrink):
    def fit(self, classifier, work, folder):
        torch.manual_seed(work.seed)
        super().fit(classifier, work, folder)


class OwnNoise(Shrink):
    def apply(self, classifier, work, folder):
        copied = copy_of(classifier)
        return with_module(copied, Noisy(copied.model))


class Noisy(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        outputs = self.network(x)
        return outputs + torch.randn(outputs.shape, generator=self.generator)


class Pickles(Shrink):
    def fit(self, classifier, work, folder):
        super().fit(classifier, work, folder)
        (folder / "more.pkl").write_bytes(pickle.dumps(0))


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (lambda: Shrink, "is_a_defence_with_a_name", "expected one of type Defence"),
        (Nameless, "is_a_defence_with_a_name", "name ''"),
        (ForgetsSettings, "settings_go_through_json", "low=0.25"),
        (TakesAnything, "refuses_unknown_settings", "'no_such_setting' is accepted"),
        (Changeable, "refuses_unknown_settings", "can be changed"),
        (
            GivesAModule,
            "gives_a_classifier_that_predicts",
            "expected one of type PyTorchClassifier",
        ),
        (Halves, "gives_a_classifier_that_predicts", "(16, 5)"),
        (UsesTheDevice, "gives_a_classifier_that_predicts", "quantum = True"),
        (InPlace, "leaves_the_given_classifier_alone", "a copy"),
        (ChangesWeights, "leaves_the_given_classifier_alone", "weight"),
        (ChangesData, "leaves_the_given_classifier_alone", "the training data"),
        (TrainsTheGiven, "leaves_the_given_classifier_alone", "its mode"),
        (DrawsInApply, "apply_gives_the_same_at_every_call", "second apply"),
        (Unseeded, "same_seed_same_defence", "second fit"),
        (SeedsEverybody, "same_seed_same_defence", "global generator of torch"),
        (OwnNoise, "apply_gives_the_same_at_every_call", ""),
        (Pickles, "keeps_no_pickles", ".pkl"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_is_found_and_named(faulty, check, words):
    options = {"low": 0.25} if faulty is ForgetsSettings else {}
    with pytest.raises(AssertionError) as caught:
        check_defence(faulty, **options)
    message = str(caught.value)
    assert f"check {check}: found" in message
    assert words in message
    assert "; expected" in message


def test_noise_outside_the_convention_is_found():
    (check,) = [check for name, check in checks_for("defence") if name.startswith("noise")]
    with pytest.raises(AssertionError, match=r"with 0 noise sources; expected all noise"):
        check(OwnNoise)
