"""The QNAD transformer: Algorithm 1 on ART classifiers, and every argument that it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from art.defences.transformer.transformer import Transformer
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from art_fixtures import images, network, one_hot, plain
from torch import nn

from qnad_art import QNAD, QuantumExecutedClassifier
from qnad_art.crosstalk.random import Random
from qnad_art.crosstalk.uniform import Uniform
from qnad_art.errors import InvalidInputError, QnadError, UnknownNameError
from qnad_art.models.architectures import build_model
from qnad_art.training import adversarial_loop

COUNT = 64


def data() -> tuple[np.ndarray, np.ndarray]:
    train = images("digits", "train")
    return train.x[:COUNT], train.y[:COUNT]


def fitted(**settings) -> QNAD:
    defence = QNAD(plain(), **{"fraction": 0.2, "seed": 0, **settings})
    defence.fit(*data())
    return defence


@pytest.mark.parametrize("strategy", ["uniform", "random"])
def test_fit_and_call(strategy):
    defence = fitted(strategy=strategy, pairs=2)
    assert isinstance(defence, Transformer)
    assert defence.is_fitted
    assert defence.plan.strategy == strategy
    assert defence.plan.requested == 0.2
    assert 0.1 < defence.plan.achieved <= 0.2001
    counts = {count for layer in defence.plan.histogram().values() for count in layer}
    assert counts == {-2, 0, 2}
    hardened = defence(data()[0], defence.get_classifier())
    assert type(hardened) is QuantumExecutedClassifier
    assert hardened.plan is defence.plan
    x, y = images().x[:100], images().y[:100]
    logits = hardened.predict(x)
    assert np.isfinite(logits).all()
    assert (logits.argmax(1) == y).mean() > 0.3
    hardened.module.remove_crosstalk()
    assert not np.allclose(hardened.predict(x), logits, atol=1e-3)


def test_settings_reach_the_classifier():
    defence = fitted(
        device="ibm_lima",
        shots=77,
        gain="raw",
        readout="raw",
        max_pairs=3,
        exclude=["features.*"],
        percentile=99.0,
    )
    hardened = defence(data()[0], plain())
    assert (hardened.shots, hardened.gain) == (77, "raw")
    module = hardened.module
    assert module.device_profile.name.endswith("lima")
    assert module.execution.table.readout == "raw"
    assert module.execution.table.max_pairs == 3
    assert list(module.layers) == ["classifier.1", "classifier.3", "classifier.5"]
    assert any(layer.clipped > 0 for layer in module.layers.values())


def test_the_seed_fixes_everything():
    x = images().x[:8]
    first, again = (fitted(shots=512)(data()[0], plain()).predict(x) for _ in range(2))
    assert np.array_equal(first, again)
    other = fitted(shots=512, seed=1)(data()[0], plain()).predict(x)
    assert not np.array_equal(first, other)


def test_labels_in_every_form_give_the_same_plan():
    x, y = data()
    plans = []
    for labels in (y, list(y), y[:, None], one_hot(y), y.astype(np.int8)):
        defence = QNAD(plain(), fraction=0.2)
        defence.fit(x, labels)
        plans.append(defence.plan)
    for plan in plans[1:]:
        for name, layer in plan.layers.items():
            assert torch.equal(layer.pairs, plans[0].layers[name].pairs)


def test_without_labels_the_classifiers_own_predictions_count():
    x, _ = data()
    defence = QNAD(plain(), fraction=0.2)
    defence.fit(x)
    own = defence.plan
    defence.fit(x, plain().predict(x).argmax(1))
    assert all(
        torch.equal(layer.pairs, own.layers[name].pairs)
        for name, layer in defence.plan.layers.items()
    )


def test_the_plan_carries_to_another_classifier_of_the_architecture():
    defence = fitted()
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    hardened = defence(data()[0], plain(model=other))
    assert hardened.plan is defence.plan
    with pytest.raises(InvalidInputError, match="another network"):
        defence(data()[0], plain(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10))))


def test_criticality_can_be_ranked_on_adversarial_examples():
    seen = []

    def attack(classifier):
        seen.append(classifier)
        return FastGradientMethod(classifier, eps=0.3)

    clean, adversarial = fitted(), fitted(attack=attack)
    assert [type(c) for c in seen] == [QuantumExecutedClassifier]
    assert any(
        not torch.equal(layer.pairs, adversarial.plan.layers[name].pairs)
        for name, layer in clean.plan.layers.items()
    )
    assert adversarial.plan.achieved == pytest.approx(clean.plan.achieved, abs=0.02)


def test_fraction_zero_is_inherent_noise_only():
    # Without the aware order, which places weights anew even where none is critical.
    defence = fitted(fraction=0.0, order="plain")
    assert defence.plan.injected == 0
    hardened = defence(data()[0], plain())
    before = hardened.predict(data()[0])
    hardened.module.remove_crosstalk()
    assert np.array_equal(hardened.predict(data()[0]), before)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "labelled",
    [True, pytest.param(False, id="own predictions")],
)
def test_the_classifier_is_never_changed(training, labelled):
    classifier = plain()
    classifier.model.train(training)
    weights = copy.deepcopy(classifier.model.state_dict())
    kinds = [type(module) for module in classifier.model.modules()]
    defence = QNAD(classifier, fraction=0.2, attack=lambda c: FastGradientMethod(c, eps=0.1))
    x, y = data()
    kept = x.copy(), y.copy()
    defence.fit(x, y if labelled else None)
    hardened = defence(x, classifier)
    hardened.predict(x)
    assert np.array_equal(x, kept[0])
    assert np.array_equal(y, kept[1])
    assert [type(module) for module in classifier.model.modules()] == kinds
    assert all(torch.equal(w, weights[name]) for name, w in classifier.model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in classifier.model.parameters())
    owned = {id(p) for p in classifier.model.parameters()}
    assert not owned & {id(p) for p in hardened.model.parameters()}
    assert all(module.training is training for module in classifier.model.modules())


def test_calling_before_fitting_is_an_error():
    defence = QNAD(plain())
    assert not defence.is_fitted
    with pytest.raises(QnadError, match="fit"):
        defence(data()[0], plain())
    with pytest.raises(QnadError, match="fit"):
        _ = defence.plan


def test_set_params_changes_settings_and_asks_for_a_new_fit():
    defence = fitted()
    defence.set_params(fraction=0.1, shots=9, strategy_settings={"pairs": 3})
    assert (defence.fraction, defence.shots) == (0.1, 9)
    assert not defence.is_fitted
    with pytest.raises(QnadError, match="fit"):
        defence(data()[0], plain())
    defence.fit(*data())
    assert defence.plan.requested == 0.1
    assert {3, -3} < set(defence.plan.histogram()["classifier.1"])
    with pytest.raises(UnknownNameError, match=r"'fractoin'.*Did you mean 'fraction'"):
        defence.set_params(fractoin=0.1)
    assert defence.is_fitted
    with pytest.raises(UnknownNameError, match="nb_epochs"):
        defence.fit(*data(), nb_epochs=3)


def test_refused_settings_change_nothing():
    defence = fitted()
    with pytest.raises(InvalidInputError, match="fraction"):
        defence.set_params(fraction=2.0)
    assert defence.fraction == 0.2


def test_strategies_as_instances():
    defence = fitted(strategy=Uniform(fraction=0.05, pairs=3, scope="layer"))
    assert defence.plan.requested == 0.05
    assert defence.plan.settings["scope"] == "layer"


def random_pairs(**settings) -> list[torch.Tensor]:
    return [layer.pairs for layer in fitted(strategy="random", **settings).plan.layers.values()]


def test_the_seed_reaches_the_random_strategy():
    chosen = random_pairs(seed=1), random_pairs(seed=2)
    assert any(not torch.equal(a, b) for a, b in zip(*chosen, strict=True))


def test_random_instances_choose_by_their_seed():
    chosen = [
        [layer.pairs for layer in fitted(strategy=Random(seed=seed)).plan.layers.values()]
        for seed in (1, 2, 1)
    ]
    assert any(not torch.equal(a, b) for a, b in zip(chosen[0], chosen[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(chosen[0], chosen[2], strict=True))


X, Y = (64, 1, 8, 8), (64,)
BAD_DATA = {
    "NaN": (np.full(X, np.nan), np.zeros(Y, int), "NaN"),
    "infinite": (np.full(X, np.inf), np.zeros(Y, int), "infinite"),
    "channels last": (np.zeros((64, 8, 8, 1)), np.zeros(Y, int), "shape"),
    "one image": (np.zeros((1, 8, 8)), np.zeros(1, int), "shape"),
    "words": (np.full(X, "a"), np.zeros(Y, int), "numbers"),
    "objects": (np.full(X, object()), np.zeros(Y, int), "numbers"),
    "no images": (np.zeros((0, 1, 8, 8)), np.zeros(0, int), "at least one"),
    "label too large": (np.zeros(X), np.full(Y, 10), "0 to 9"),
    "label negative": (np.zeros(X), np.full(Y, -1), "0 to 9"),
    "too few labels": (np.zeros(X), np.zeros(63, int), "labels"),
    "too few columns": (np.zeros(X), np.zeros((64, 9)), "labels"),
    "labels are words": (np.zeros(X), np.full(Y, "a"), "abel"),
    "labels are NaN": (np.zeros(X), np.full(Y, np.nan), "abel"),
    "labels are fractions": (np.zeros(X), np.full(Y, 1.5), "abel"),
}


@pytest.mark.parametrize(
    "bad",
    [pytest.param(bad) for bad in BAD_DATA],
)
def test_unusable_data_are_refused(bad):
    x, y, says = BAD_DATA[bad]
    defence = QNAD(plain())
    with pytest.raises(InvalidInputError, match=says):
        defence.fit(x, y)
    assert not defence.is_fitted


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"fraction": -0.1}, InvalidInputError, r"-0.1.*\[0, 1\]"),
        ({"fraction": 1.1}, InvalidInputError, r"1.1.*\[0, 1\]"),
        ({"fraction": float("nan")}, InvalidInputError, "nan"),
        pytest.param({"fraction": "0.3"}, InvalidInputError, "0.3"),
        ({"shots": -1}, InvalidInputError, "-1.*whole number from 1"),
        ({"shots": 0}, InvalidInputError, "whole number from 1"),
        ({"shots": 1.5}, InvalidInputError, "1.5.*whole number from 1"),
        ({"shots": True}, InvalidInputError, "True"),
        ({"device": "ibm_nairobbi"}, UnknownNameError, "Did you mean 'ibm_nairobi'.*ibm_lagos"),
        ({"strategy": "unifrom"}, UnknownNameError, "Did you mean 'uniform'.*random"),
        ({"pears": 2}, UnknownNameError, "Did you mean 'pairs'.*scope"),
        ({"pairs": 0}, InvalidInputError, "1 to 127"),
        ({"pairs": 1.5}, InvalidInputError, "1 to 127"),
        ({"pairs": 21}, InvalidInputError, "max_pairs=21"),
        ({"polarity": "up"}, InvalidInputError, "alternating, fixed"),
        ({"scope": "all"}, InvalidInputError, "global, layer, balanced"),
        ({"gain": "loud"}, InvalidInputError, "calibrated, raw"),
        ({"readout": "none"}, InvalidInputError, "twirled"),
        ({"order": "any"}, InvalidInputError, "aware"),
        ({"percentile": 0}, InvalidInputError, "percentile"),
        ({"include": ["nothing"]}, InvalidInputError, "nothing"),
        ({"calibration_images": 0}, InvalidInputError, "calibration_images"),
        pytest.param({"strategy": Uniform(), "pairs": 2}, InvalidInputError, "pairs"),
    ],
    ids=str,
)
def test_unusable_settings_are_refused(settings, error, says):
    with pytest.raises(error, match=f"(?s){says}"):
        fitted(**settings)(data()[0], plain())


def test_only_pytorch_classifiers_can_be_hardened():
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    model = LogisticRegression().fit(x.reshape(COUNT, -1), y)
    defence = QNAD(SklearnClassifier(model, clip_values=(0, 1)))
    with pytest.raises(InvalidInputError, match=r"Scikitlearn.*PyTorchClassifier"):
        defence.fit(x.reshape(COUNT, -1), y)
    with pytest.raises(InvalidInputError, match="PyTorchClassifier"):
        fitted()(x, build_model("lenet5", image_size=8))


def test_without_labels_every_part_keeps_its_mode():
    classifier = plain()
    classifier.model.train()
    parts = list(classifier.model.modules())
    parts[-1].eval()  # as a batch norm that was frozen
    before = [part.training for part in parts]
    QNAD(classifier, fraction=0.1).fit(data()[0])
    assert [part.training for part in parts] == before


@pytest.mark.parametrize("channels", [1, 3])
def test_tuning_attacks_the_images_that_the_classifier_takes(channels, monkeypatch):
    """A classifier that standardises: ε and range are those of its images, not of its network."""
    generator = np.random.default_rng(0)
    x = generator.random((60, channels, 4, 4), dtype=np.float32) * 2 - 1
    mean = np.linspace(0.1, 0.4, channels, dtype=np.float32).reshape(-1, 1, 1)
    std = np.linspace(0.2, 0.5, channels, dtype=np.float32).reshape(-1, 1, 1)
    classifier = PyTorchClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 3)),
        nn.CrossEntropyLoss(),
        (channels, 4, 4),
        3,
        clip_values=(-1, 1),
        preprocessing=(mean, std),
    )
    seen, before = [], adversarial_loop.perturb

    def watched(network, inputs, labels, **settings):
        found = before(network, inputs, labels, **settings)
        scale, offset = torch.tensor(std), torch.tensor(mean)
        seen.append((inputs * scale + offset, found * scale + offset))
        return found

    monkeypatch.setattr(adversarial_loop, "perturb", watched)
    QNAD(classifier, strategy="tuned", epochs=1, epsilon=0.25).fit(x, np.arange(60) % 3)
    for images_, found in seen:
        assert float(found.min()) >= -1 - 1e-5
        assert float(found.max()) <= 1 + 1e-5
        assert float((found - images_).abs().max()) <= 0.25 + 1e-5
    moved = torch.cat([(found - images_).abs().amax((0, 2, 3)) for images_, found in seen[-1:]])
    torch.testing.assert_close(moved, torch.full((channels,), 0.25), rtol=0, atol=1e-4)


def test_tuning_refuses_inputs_beyond_the_range_of_images():
    x, y = data()
    with pytest.raises(InvalidInputError, match=r"run from 0 to 1, beyond clip \(0.0, 0.5\)"):
        QNAD(plain(), strategy="tuned", epochs=1, clip=(0.0, 0.5)).fit(x, y)


def test_mean_and_std_of_another_number_of_channels_are_refused():
    x, y = data()
    with pytest.raises(InvalidInputError, match="2 values, and the inputs 1 channels"):
        QNAD(plain(), strategy="tuned", epochs=1, mean=(0, 0), std=(1, 1)).fit(x, y)
    with pytest.raises(InvalidInputError, match="give as many of each"):
        QNAD(plain(), strategy="tuned", mean=(0, 0), std=(1,))


def test_numbers_of_numpy_can_be_saved(tmp_path):
    defence = fitted(fraction=np.float32(0.25), compute=np.array([0, 2]))
    classifier = defence(data()[0], defence.get_classifier())
    classifier.shots = np.int64(10)
    classifier.save("net", str(tmp_path))
    assert QuantumExecutedClassifier.load(tmp_path / "net").shots == 10
