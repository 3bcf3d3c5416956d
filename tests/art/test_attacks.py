"""ART's attacks and trainers on the noisy classifier, in expectation and with shots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import art.attacks.evasion as evasion
import numpy as np
import pytest
import torch
from art.defences import trainer
from art.defences.preprocessor import FeatureSqueezing
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.estimators.classification import PyTorchClassifier
from art_attacks import ATTACKS, EPS, PGD, Attack, reproducible
from art_fixtures import hardened, images, one_hot, plain, with_optimizer
from torch import nn

from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.network.module import AveragedDraws

Classifier = QuantumExecutedClassifier
COUNT = 4
EXECUTIONS = {"expectation": None, "shots": 4096}


@pytest.fixture(autouse=True)
def _seeded():
    with reproducible():
        yield


@pytest.fixture(params=EXECUTIONS)
def classifier(request) -> Classifier:
    return hardened(shots=EXECUTIONS[request.param])


# All of them: tests/test_attack_table.py.
USUAL = [
    *("FGSM", "FGSM L2", "BIM", "PGD", "PGD numpy", "PGD torch", "PGD torch L2"),
    *("AutoPGD CE", "AutoPGD DLR", "DeepFool", "C&W Linf", "C&W L2", "ElasticNet", "NewtonFool"),
    *("JSMA", "Square", "HopSkipJump", "Boundary", "ZOO", "Universal"),
]
REBUILDING = ["AutoPGD CE", "ACG CE", "ACG DLR", "ReACG CE", "ReACG DLR", "Brendel & Bethge"]


@pytest.mark.parametrize("name", USUAL)
def test_attack_runs_and_keeps_its_promises(classifier, name):
    attack, order = ATTACKS[name], ATTACKS[name].order
    data = images()
    x = data.x[:COUNT].copy()
    classifier.reseed(1)
    adversarial = attack.examples(classifier, x, data.y[:COUNT])
    assert adversarial.shape == x.shape
    assert adversarial.dtype == np.float32
    assert np.isfinite(adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert np.array_equal(x, data.x[:COUNT])
    assert not np.array_equal(adversarial, x)
    if order is not None:
        change = np.linalg.norm((adversarial - x).reshape(COUNT, -1), ord=order, axis=1)
        assert change.max() <= EPS + 1e-5


@pytest.mark.parametrize("name", ["FGSM", "PGD", "AutoPGD CE", "AutoPGD DLR"])
def test_gradient_attacks_raise_the_loss_of_the_noisy_classifier(classifier, name):
    data = images()
    x, y = data.x[:32], one_hot(data.y[:32])
    adversarial = ATTACKS[name].on(classifier).generate(x, y)
    with classifier.frozen_draw():
        before, after = (classifier.compute_loss(z, y).mean() for z in (x, adversarial))
    assert after > 2 * before
    accuracy = (classifier.predict(adversarial).argmax(1) == data.y[:32]).mean()
    assert accuracy < (classifier.predict(x).argmax(1) == data.y[:32]).mean()


def test_noise_off_attacks_find_what_they_find_on_arts_own_classifier():
    # Away from 0 and 1, where clipping of pixels ends; the two differ by rounding only.
    data = images()
    x, y = 0.1 + 0.8 * data.x[:16], one_hot(data.y[:16])
    off = hardened(plain(), device="ideal")
    for name in ("FGSM L2", "PGD torch L2", "NewtonFool", "DeepFool"):
        attack = ATTACKS[name]
        torch.default_generator.manual_seed(0)
        expected = attack.on(plain()).generate(x, y)
        torch.default_generator.manual_seed(0)
        np.testing.assert_allclose(attack.on(off).generate(x, y), expected, atol=1e-3, err_msg=name)


def counted_passes(model: nn.Module, action: Callable[[], Any]) -> int:
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    try:
        action()
    finally:
        handle.remove()
    return len(passes)


def test_a_classifier_rebuilt_from_model_runs_the_noise(classifier):
    data = images()
    x, y = data.x[:8], one_hot(data.y[:8])
    rebuilt = PyTorchClassifier(
        classifier.model, nn.CrossEntropyLoss(), classifier.input_shape, 10, device_type="cpu"
    )
    with classifier.frozen_draw():
        assert np.array_equal(rebuilt.predict(x), classifier.predict(x))
        expected = classifier.loss_gradient(x, y)
        np.testing.assert_allclose(rebuilt.loss_gradient(x, y), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(rebuilt.predict(x) - plain().predict(x)).max() > 1e-3


@pytest.mark.parametrize("name", REBUILDING)
def test_attacks_that_rebuild_the_classifier_attack_the_noisy_network(classifier, name):
    data = images()
    x, y = data.x[:1], data.y[:1]
    target = classifier.averaged(2)
    attack = ATTACKS[name].on(target)
    rebuilt = attack.estimator
    assert rebuilt is not target
    assert type(rebuilt) is PyTorchClassifier  # none of our overrides: the noise is in the module
    with classifier.frozen_draw():
        assert np.array_equal(rebuilt.predict(x), target.predict(x))
    assert np.array_equal(rebuilt.predict(x), rebuilt.predict(x)) == (classifier.shots is None)
    # No layer runs but within a pass of the noisy module, and each pass is two draws.
    inside, layers, passes = [], [], []
    classifier.module.register_forward_pre_hook(lambda *_: inside.append(1))
    classifier.module.register_forward_hook(lambda *_: passes.append(inside.pop()))
    for layer in classifier.module.layers.values():
        layer.register_forward_hook(lambda *_: layers.append(bool(inside)))
    with classifier.frozen_draw():  # Brendel & Bethge's asserts that a prediction repeats
        ATTACKS[name].generate(attack, x, one_hot(y))
    assert all(layers)
    assert len(layers) == len(passes) * len(classifier.module.layers)
    assert len(passes) >= 6
    assert len(passes) % 2 == 0


@pytest.mark.parametrize("name", ["AutoPGD CE", "PGD torch", "Square"])
def test_attacks_meet_the_noisy_module_and_averaging_survives_them(classifier, name):
    data = images()
    averaged = classifier.averaged(2)
    assert isinstance(averaged.model, AveragedDraws)
    for attacked, draws in ((classifier, 1), (averaged, 2)):

        def run(attacked: Classifier = attacked) -> None:
            ATTACKS[name].on(attacked).generate(data.x[:2], one_hot(data.y[:2]))

        inner = counted_passes(classifier.module, run)
        assert inner >= 3 * draws
        assert inner % draws == 0


def test_adversarial_patch(classifier):
    data = images()
    attack = evasion.AdversarialPatchPyTorch(
        classifier,
        rotation_max=0,
        scale_min=0.9,
        scale_max=1.0,
        max_iter=2,
        batch_size=COUNT,
        patch_shape=(1, 4, 4),
        learning_rate=0.1,
        verbose=False,
    )
    patch, _ = attack.generate(data.x[:COUNT], one_hot(data.y[:COUNT]))
    assert patch.shape == (1, 4, 4)
    assert np.isfinite(patch).all()
    patched = attack.apply_patch(data.x[:COUNT], scale=1.0)
    assert patched.shape == data.x[:COUNT].shape
    assert patched.min() >= 0
    assert patched.max() <= 1


class Float32FeatureSqueezing(FeatureSqueezing):
    """ART 1.20's own returns float64 under NumPy 2, which its PyTorchClassifier cannot run."""

    def __call__(self, x: Any, y: Any = None) -> Any:
        squeezed, y = super().__call__(x, y)
        return squeezed.astype(np.float32), y


class Blur(PreprocessorPyTorch):
    """A preprocessor that keeps the PyTorch path (ART's own ones want more packages)."""

    def forward(self, x: torch.Tensor, y: Any = None) -> Any:
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1), y


PREPROCESSORS = {
    "numpy": lambda: Float32FeatureSqueezing(clip_values=(0, 1), bit_depth=2),
    "torch": Blur,
}


@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_preprocessors_act_before_the_circuits_and_attacks_pass_them(classifier, kind):
    data = images()
    x, y = data.x[:8], one_hot(data.y[:8])
    preprocessor = PREPROCESSORS[kind]()
    defended = hardened(plain(preprocessing_defences=preprocessor), shots=classifier.shots)
    assert defended.preprocessing_defences == [preprocessor]
    # The same module without the preprocessor, fed with what the preprocessor makes.
    bare = Classifier(defended.model, defended.loss, defended.input_shape, 10, device_type="cpu")
    with defended.frozen_draw():
        expected = bare.predict(preprocessor(x)[0])
        np.testing.assert_allclose(defended.predict(x), expected, rtol=1e-5, atol=1e-5)
        assert np.abs(expected - bare.predict(x)).max() > 0.1
    adversarial = ATTACKS["PGD"].on(defended).generate(x, y)
    assert 0 < np.abs(adversarial - x).max() <= EPS + 1e-5
    assert defended.all_framework_preprocessing == (kind == "torch")
    with defended.frozen_draw():
        before, after = (defended.compute_loss(z, y).mean() for z in (x, adversarial))
    assert after > before


def _trainers() -> dict[str, Callable[[Classifier], Any]]:
    pgd = Attack("ProjectedGradientDescent", {**PGD, "max_iter": 1}).on

    def awp(classifier: Classifier) -> Any:
        proxy = with_optimizer(hardened(shots=classifier.shots))
        return trainer.AdversarialTrainerAWPPyTorch(
            classifier, proxy, pgd(classifier), mode="PGD", gamma=0.01, beta=6.0, warmup=0
        )

    return {
        "AdversarialTrainer": lambda c: trainer.AdversarialTrainer(c, pgd(c), ratio=0.5),
        "MadryPGD": lambda c: trainer.AdversarialTrainerMadryPGD(
            c, nb_epochs=1, batch_size=32, eps=EPS, eps_step=0.1, max_iter=1
        ),
        "TRADES": lambda c: trainer.AdversarialTrainerTRADESPyTorch(c, pgd(c), beta=1.0),
        "FBF": lambda c: trainer.AdversarialTrainerFBFPyTorch(c, eps=EPS),
        "AWP": awp,
    }


TRAINERS = _trainers()


@pytest.mark.parametrize("name", TRAINERS)
def test_trainers_train_through_the_noise(classifier, name):
    data = images("digits", "train")
    student = with_optimizer(hardened(shots=classifier.shots))
    before = [p.detach().clone() for p in student.model.parameters()]
    settings = {} if name == "MadryPGD" else {"batch_size": 32, "nb_epochs": 1}
    y = one_hot(data.y[:64])

    def run() -> None:
        TRAINERS[name](student).fit(data.x[:64], y, **settings)

    assert counted_passes(student.model, run) >= 4
    after = list(student.model.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # What runs afterwards is the trained weights, not kernels compiled from earlier ones.
    x = data.x[:8]
    with student.frozen_draw():
        trained = student.predict(x)
        for layer in student.module.layers.values():
            layer.invalidate()
        assert np.array_equal(student.predict(x), trained)


def test_schedulers_fare_in_trades_as_with_arts_own_classifier():
    """ART issue 2389: TRADES looked for a class that torch 2 schedulers need not have."""

    def accepts(classifier: PyTorchClassifier) -> bool:
        optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.01)
        classifier.set_params(optimizer=optimizer)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        data = images("digits", "train")
        x, y = data.x[:16], one_hot(data.y[:16])
        try:
            TRAINERS["TRADES"](classifier).fit(x, y, nb_epochs=1, scheduler=scheduler)
        except ValueError:
            return False
        return True

    assert accepts(hardened()) == accepts(plain())
