"""The ART estimator: with noise off it is ART's PyTorchClassifier, with noise on it keeps house."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import art.config
import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from art_fixtures import hardened, ideal, images, network, one_hot, plain, with_optimizer
from torch import nn

from qnad_art import AveragedDraws, QuantumExecutedClassifier
from qnad_art.errors import InvalidInputError

SHOTS = 4096


CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# Mean and standard deviation per channel and as scalars, both of which ART takes.
PREPROCESSING = {
    "none": (0.0, 1.0),
    "scalars": (0.5, 2.0),
    "arrays": (np.full((1, 1, 1), 0.1, np.float32), np.full((1, 1, 1), 0.9, np.float32)),
}


def data(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return images().x[:count], images().y[:count]


def same(found, expected) -> None:
    """Equal up to rounding, relative to the largest entry."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(scale, 1e-6))


@pytest.fixture(scope="module")
def exact() -> QuantumExecutedClassifier:
    return hardened()


@pytest.fixture
def noisy() -> QuantumExecutedClassifier:
    return hardened(shots=SHOTS)


# Against ART's own classifier


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_noise_off_everything_is_as_in_arts_own_classifier(preprocessing):
    oracle = plain(preprocessing=PREPROCESSING[preprocessing])
    off = ideal(oracle)
    x, y = data()
    x = 0.01 + 0.98 * x  # the ends of the range have a test of their own
    targets = one_hot(y)
    assert isinstance(off, PyTorchClassifier)
    assert type(off.preprocessing) is type(oracle.preprocessing)
    assert off.all_framework_preprocessing is True
    assert np.array_equal(off.clip_values, oracle.clip_values)
    assert type(off.loss) is type(oracle.loss)
    for name in ("channels_first", "nb_classes", "input_shape", "device_type"):
        assert getattr(off, name) == getattr(oracle, name)
    np.testing.assert_allclose(off.predict(x), oracle.predict(x), **CLOSE)
    same(off.loss_gradient(x, targets), oracle.loss_gradient(x, targets))
    for label in (None, 3, np.int64(4), y):
        same(off.class_gradient(x, label), oracle.class_gradient(x, label))
    for reduction in ("none", "mean", "sum"):
        found, expected = (c.compute_loss(x, targets, reduction=reduction) for c in (off, oracle))
        np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_allclose(off.compute_loss(x, y), oracle.compute_loss(x, targets), **CLOSE)


@pytest.mark.slow
def test_noise_off_as_arts_own_classifier_on_mnist():
    oracle = plain("mnist5k")
    off = hardened(oracle, "mnist5k", device="ideal")
    x, y = images("mnist5k").x[:64], images("mnist5k").y[:64]
    assert (oracle.predict(x).argmax(1) == y).mean() > 0.8
    np.testing.assert_allclose(off.predict(x), oracle.predict(x), **CLOSE)
    x = 0.01 + 0.98 * x
    same(off.loss_gradient(x[:8], one_hot(y[:8])), oracle.loss_gradient(x[:8], one_hot(y[:8])))


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_the_largest_activations_have_a_gradient_too(preprocessing):
    # White pixels are as large as the scale s_x; a zero gradient there would mask attacks.
    oracle = plain(preprocessing=PREPROCESSING[preprocessing])
    off = ideal(oracle)
    x, y = data()
    assert (x == 1).any()
    same(off.loss_gradient(x, one_hot(y)), oracle.loss_gradient(x, one_hot(y)))
    same(off.class_gradient(x), oracle.class_gradient(x))


def test_noise_on_differs_but_still_classifies(exact, noisy):
    x, y = images().x, images().y
    for classifier in (exact, noisy):
        logits = classifier.predict(x)
        assert np.abs(logits - plain().predict(x)).max() > 0.1
        assert (logits.argmax(1) == y).mean() > 0.8


# Kinds of input


def test_tensors_go_in_and_come_out(exact):
    x, y = data()
    targets = one_hot(y)
    tensor, labels = torch.from_numpy(x), torch.from_numpy(targets)
    gradient = exact.loss_gradient(tensor, labels)
    assert isinstance(gradient, torch.Tensor)
    assert gradient.device == exact.device
    same(gradient.numpy(), exact.loss_gradient(x, targets))
    loss = exact.compute_loss(tensor, labels)
    assert isinstance(loss, torch.Tensor)
    np.testing.assert_allclose(loss.detach().numpy(), exact.compute_loss(x, targets), **CLOSE)
    np.testing.assert_allclose(exact.predict(tensor), exact.predict(x), **CLOSE)
    tracked = tensor.clone().requires_grad_()
    logits, _ = exact._predict_framework(tracked)
    logits.sum().backward()
    assert tracked.grad.abs().max() > 0


@pytest.mark.parametrize(
    "kind",
    [
        *("float64", "float16", "uint8", "bool", "list"),
        pytest.param("reversed"),
    ],
)
def test_other_numbers_are_cast_to_float32(exact, kind):
    x = (data()[0] > 0.5).astype(np.float32)
    other = {
        "list": lambda: x.tolist(),
        "reversed": lambda: x[:, :, :, ::-1].copy()[:, :, :, ::-1],
    }.get(kind, lambda: x.astype(kind))()
    logits = exact.predict(other)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, exact.predict(x), **CLOSE)


@pytest.mark.parametrize("count", [0, 1])
def test_empty_batches_and_batches_of_one(noisy, count):
    x, y = data(count)
    assert noisy.predict(x).shape == (count, 10)
    assert noisy.loss_gradient(x, one_hot(y)).shape == x.shape
    assert noisy.class_gradient(x).shape == (count, 10, *x.shape[1:])
    assert noisy.class_gradient(x, 3).shape == (count, 1, *x.shape[1:])
    assert noisy.compute_loss(x, one_hot(y)).shape == (count,)


def test_arguments_that_attacks_pass_to_predict(exact):
    x, y = data()
    expected = exact.predict(x)
    np.testing.assert_allclose(exact.predict(x, logits=True, y=one_hot(y)), expected, **CLOSE)
    np.testing.assert_allclose(exact.predict(x, 2, training_mode=True), expected, **CLOSE)


SHAPE = (6, 1, 8, 8)
BAD_INPUTS = {
    "NaN": np.full(SHAPE, np.nan),
    "infinite": np.full(SHAPE, np.inf),
    "too large for float32": np.full(SHAPE, 1e300),
    "no batch": np.zeros((1, 8, 8)),
    "channels last": np.zeros((6, 8, 8, 1)),
    "other size": np.zeros((6, 1, 9, 9)),
    "scalar": 1.0,
    "none": None,
    "words": np.full(SHAPE, "one"),
    "objects": np.full(SHAPE, object()),
    "numbers as words": np.full(SHAPE, "1.0"),
    "complex": np.full(SHAPE, 1j),
    "NaN tensor": torch.full(SHAPE, torch.nan),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Casting complex")
@pytest.mark.parametrize(
    "bad",
    [pytest.param(bad) for bad in BAD_INPUTS],
)
def test_unusable_inputs_are_refused(exact, bad):
    x, targets = BAD_INPUTS[bad], one_hot(data()[1])
    calls = [
        lambda: exact.predict(x),
        lambda: exact.loss_gradient(x, targets),
        lambda: exact.class_gradient(x, 3),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="input"):
            call()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0, 1, 2, 3, 4, 10]), "0 to 9"),
        (np.array([0, 1, 2, 3, 4, -1]), "0 to 9"),
        (np.zeros(5, int), r"\(5,\)"),
        (np.zeros((6, 9)), r"\(6, 9\)"),
        (np.zeros((1, 6)), r"\(1, 6\)"),
    ],
)
def test_unusable_labels_are_refused(labels, says):
    classifier = with_optimizer(hardened())
    for use in (classifier.loss_gradient, classifier.fit):
        with pytest.raises(InvalidInputError, match=says):
            use(data()[0], labels)


@pytest.mark.parametrize(
    ("labels", "use"),
    [
        pytest.param(np.full(6, np.nan), "loss_gradient"),
        pytest.param(np.full(6, np.nan), "fit"),
        pytest.param(np.full(6, 2.5), "fit"),
        pytest.param(np.array(list("abcdef")), "fit"),
        pytest.param(None, "loss_gradient"),
        (None, "fit"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(labels, use):
    with pytest.raises(InvalidInputError, match="label"):
        getattr(with_optimizer(hardened()), use)(data()[0], labels)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((6,)),
        pytest.param((6, 1)),
        (6, 10),
    ],
)
def test_index_labels_give_the_gradient_of_one_hot_labels(exact, shape):
    x, y = data()
    labels = one_hot(y) if shape == (6, 10) else y.reshape(shape)
    same(exact.loss_gradient(x, labels), exact.loss_gradient(x, one_hot(y)))


def test_labels_out_of_range_have_no_class_gradient(exact):
    for label in (-1, 10):
        with pytest.raises(ValueError, match="out of range"):
            exact.class_gradient(data()[0], label)


# Parameters


@pytest.mark.parametrize(
    "key",
    [pytest.param(key) for key in QuantumExecutedClassifier.estimator_params],
)
def test_every_parameter_survives_a_round_trip(noisy, key):
    noisy = with_optimizer(noisy)
    x, y = data()
    with noisy.frozen_draw():
        expected = noisy.predict(x), noisy.loss_gradient(x, one_hot(y))
        value = noisy.get_params()[key]
        noisy.set_params(**{key: value})
        assert np.all(noisy.get_params()[key] == value)
        assert np.array_equal(noisy.predict(x), expected[0])
        assert np.array_equal(noisy.loss_gradient(x, one_hot(y)), expected[1])
    assert noisy.all_framework_preprocessing


def test_settings_act():
    classifier = hardened()
    x = data()[0]
    expected = classifier.predict(x)
    classifier.set_params(shots=100)
    assert classifier.shots == classifier.module.shots == 100
    assert not np.array_equal(classifier.predict(x), classifier.predict(x))
    classifier.set_params(shots=None, gain="raw")
    assert classifier.gain == classifier.module.gain == "raw"
    assert not np.allclose(classifier.predict(x), expected, **CLOSE)
    classifier.gain = "calibrated"
    assert np.array_equal(classifier.predict(x), expected)
    for settings, shots in (({}, None), ({"shots": 7}, 7), ({"shots": None}, None)):
        copied = copy.deepcopy(classifier.model)
        made = QuantumExecutedClassifier(copied, classifier.loss, (1, 8, 8), 10, **settings)
        assert made.shots == shots
    for bad in ({"shots": 0}, {"shots": -1}, {"shots": 1.5}, {"shots": "9"}, {"gain": "loud"}):
        with pytest.raises(InvalidInputError, match=str(next(iter(bad)))):
            classifier.set_params(**bad)
    with pytest.raises(ValueError, match="colour"):
        classifier.set_params(colour="red")


@pytest.mark.parametrize(
    "model", [nn.Linear(2, 2), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), None]
)
def test_only_quantum_executed_modules_are_taken(model):
    with pytest.raises(InvalidInputError, match="convert"):
        QuantumExecutedClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10)


def test_a_sequential_around_the_module_is_refused(exact):
    # ART would run its children and skip its forward.
    with pytest.raises(InvalidInputError, match="Sequential"):
        QuantumExecutedClassifier(nn.Sequential(exact.model), exact.loss, (1, 8, 8), 10)


def test_from_art_takes_pytorch_classifiers_only():
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.eye(3), [0, 1, 2])
    with pytest.raises(InvalidInputError, match="PyTorchClassifier"):
        QuantumExecutedClassifier.from_art(SklearnClassifier(model), np.eye(3))
    with pytest.raises(InvalidInputError, match="already"):
        hardened(hardened())


def test_from_art_leaves_the_original_alone():
    oracle = plain()
    before = copy.deepcopy(oracle.model.state_dict())
    classifier = with_optimizer(hardened(oracle), 0.1)
    classifier.fit(*data(32), nb_epochs=1)
    assert all(torch.equal(before[name], w) for name, w in oracle.model.state_dict().items())
    assert type(oracle.model) is type(network())
    assert classifier.loss is not oracle.loss


def test_a_top_level_sequential_can_be_converted():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    oracle = plain(model=model)
    off = ideal(oracle)
    np.testing.assert_allclose(off.predict(data()[0]), oracle.predict(data()[0]), **CLOSE)


# Copies


def copies(classifier: QuantumExecutedClassifier) -> dict[str, QuantumExecutedClassifier]:
    return {
        "deepcopy": copy.deepcopy(classifier),
        "pickle": pickle.loads(pickle.dumps(classifier)),
    }


def files_of_art() -> set[str]:
    return {str(p) for p in Path(art.config.ART_DATA_PATH).rglob("*")}


@pytest.mark.parametrize("averaged", [False, True])
def test_copies_draw_alike_and_write_no_files(noisy, tmp_path, monkeypatch, averaged):
    monkeypatch.chdir(tmp_path)
    x = data()[0]
    noisy.predict(x)  # the generators are in the middle of their sequence
    original = noisy.averaged(2) if averaged else noisy
    before = files_of_art()
    made = copies(original)
    assert files_of_art() == before
    assert os.listdir(tmp_path) == []
    first, second = original.predict(x), original.predict(x)
    assert not np.array_equal(first, second)
    for name, made_copy in made.items():
        assert type(made_copy) is QuantumExecutedClassifier, name
        assert made_copy.model is not original.model
        assert made_copy.device == original.device
        assert np.array_equal(made_copy.predict(x), first), name
        assert np.array_equal(made_copy.predict(x), second), name
        assert repr(made_copy) == repr(original)


def test_the_optimizer_of_a_copy_trains_the_copy(noisy):
    x, y = data(16)
    original = with_optimizer(noisy)
    original.fit(x, y, nb_epochs=1)
    before = copy.deepcopy(original.model.state_dict())
    trained = []
    for made_copy in copies(original).values():
        torch.default_generator.manual_seed(0)
        made_copy.fit(x, y, nb_epochs=1)
        assert all(
            not torch.equal(a, b)
            for a, b in zip(made_copy.model.parameters(), original.model.parameters(), strict=True)
        )
        trained.append(made_copy.predict(x))
    assert all(torch.equal(w, before[name]) for name, w in original.model.state_dict().items())
    assert np.array_equal(*trained)


def test_clone_for_refitting_starts_afresh(noisy):
    noisy = with_optimizer(noisy)
    clone = noisy.clone_for_refitting()
    assert type(clone) is QuantumExecutedClassifier
    assert clone.shots == SHOTS
    assert type(clone.optimizer) is type(noisy.optimizer)
    owned = {id(p) for p in clone.model.parameters()}
    assert {id(p) for p in clone.optimizer.param_groups[0]["params"]} == owned
    x, y = images().x, images().y
    assert (clone.predict(x).argmax(1) == y).mean() < 0.5 < (noisy.predict(x).argmax(1) == y).mean()
    with pytest.raises(ValueError, match="optimizer"):
        hardened().clone_for_refitting()


# Training


def test_fit_trains_through_shot_noise():
    x, y = images("digits", "train").x[:256], images("digits", "train").y[:256]
    classifier = with_optimizer(hardened(shots=1024))
    torch.default_generator.manual_seed(0)

    def loss() -> float:
        classifier.reseed(5)
        return float(classifier.compute_loss(x, one_hot(y)).mean())

    before = loss()
    classifier.fit(x, y, nb_epochs=6, batch_size=32)
    assert loss() < 0.8 * before
    classifier.fit(x[:32], one_hot(y[:32]), nb_epochs=1)  # one-hot labels too


def test_fit_needs_an_optimizer(exact):
    with pytest.raises(InvalidInputError, match="optimizer"):
        exact.fit(*data())


def test_attack_gradients_leave_the_weights_trainable(noisy):
    x, y = data()
    frozen = next(noisy.model.parameters())
    frozen.requires_grad_(False)
    noisy.loss_gradient(x, one_hot(y))
    noisy.class_gradient(x, 1)
    assert [p.requires_grad for p in noisy.model.parameters()].count(False) == 1
    assert not frozen.requires_grad
    with pytest.raises(ValueError, match="out of range"):
        noisy.class_gradient(x, 99)
    assert [p.requires_grad for p in noisy.model.parameters()].count(False) == 1


# Draws


def test_the_training_flag_does_not_switch_the_noise(noisy):
    x = data()[0]
    drawn = []
    for training in (False, True):
        noisy.reseed(3)
        noisy.model.train(training)
        drawn.append(noisy.predict(x, training_mode=training))
    assert np.array_equal(*drawn)
    exact = hardened().predict(x)
    assert all(not np.allclose(d, exact, **CLOSE) for d in drawn)


def test_reseeding_repeats_the_draws(noisy):
    x, y = data()
    runs = []
    for _ in range(2):
        noisy.reseed(11)
        runs.append((noisy.predict(x), noisy.loss_gradient(x, one_hot(y)), noisy.predict(x)))
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(runs[0][0], runs[0][2])
    noisy.reseed(12)
    assert not np.array_equal(noisy.predict(x), runs[0][0])


def test_the_noise_uses_no_global_generator(noisy):
    # Of the module: ART's own data loader draws a seed from torch's global generator.
    x = torch.from_numpy(data()[0])
    drawn = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for seed in (0, 1):
            torch.default_generator.manual_seed(seed)
            state = torch.get_rng_state()
            noisy.reseed(1)
            drawn.append(noisy.model(x))
            assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*drawn)


def test_a_frozen_draw_is_the_same_in_every_pass_and_thaws(noisy):
    x = data()[0]
    with noisy.frozen_draw():
        first = noisy.predict(x)
        by_class = noisy.class_gradient(x)
        assert np.array_equal(noisy.predict(x), first)
        with noisy.frozen_draw():
            assert np.array_equal(noisy.predict(x), first)
        assert np.array_equal(noisy.predict(x), first)
        for label in (0, 9):
            same(noisy.class_gradient(x, label)[:, 0], by_class[:, label])
        with pytest.raises(InvalidInputError):
            noisy.predict(x * np.nan)
        assert np.array_equal(noisy.predict(x), first)
    assert not np.array_equal(noisy.predict(x), noisy.predict(x))


# Averaging


def test_averaging_reduces_the_noise_and_keeps_the_mean(noisy):
    x = data(1)[0].repeat(64, axis=0)
    averaged = noisy.averaged(16)
    assert isinstance(averaged.model, AveragedDraws)
    assert averaged.module is noisy.module
    single, several = noisy.predict(x).std(0).mean(), averaged.predict(x).std(0).mean()
    assert single / 8 < several < single / 2.5
    noisy.reseed(4)
    draws = np.mean([noisy.predict(x) for _ in range(3)], axis=0)
    noisy.reseed(4)
    np.testing.assert_allclose(noisy.averaged(3).predict(x), draws, **CLOSE)
    noisy.reseed(4)
    draws = torch.stack([torch.from_numpy(noisy.predict(x)).softmax(1) for _ in range(3)])
    noisy.reseed(4)
    found = noisy.averaged(3, of="probabilities").predict(x)
    np.testing.assert_allclose(found, draws.mean(0).log().numpy(), **CLOSE)


def test_averaged_gradients_are_means_of_gradients(noisy):
    x = data()[0]
    noisy.reseed(4)
    draws = np.mean([noisy.class_gradient(x, 2) for _ in range(3)], axis=0)
    noisy.reseed(4)
    same(noisy.averaged(3).class_gradient(x, 2), draws)


@pytest.mark.parametrize(("draws", "of"), [(0, "logits"), (-1, "logits"), (2, "votes")])
def test_impossible_averages_are_refused(exact, draws, of):
    with pytest.raises(InvalidInputError, match=r"draws|votes"):
        exact.averaged(draws, of=of)


def test_the_report_counts_every_product(exact):
    report = exact.report()
    by_name = {row.name: row for row in report.layers}
    assert by_name["classifier.5"].products == 84 * 10
    assert all(row.quantum for row in report.layers)
    assert report.products == sum(row.products for row in report.layers)


class Scaled(nn.Module):
    """Code of a user's around a quantum-executed module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) / 2


def test_what_is_around_the_module_is_averaged_and_not_lost(tmp_path):
    whole = hardened(shots=SHOTS)
    wrapped = QuantumExecutedClassifier(
        Scaled(whole.module), nn.CrossEntropyLoss(), whole.input_shape, whole.nb_classes
    )
    x, _ = data()
    wrapped.reseed(1)
    expected = wrapped.predict(x)
    wrapped.reseed(1)
    same(wrapped.averaged(1).averaged(1).predict(x), expected)
    for call in (lambda: wrapped.save("net", str(tmp_path)), lambda: wrapped.allocate_shots(x)):
        with pytest.raises(InvalidInputError, match="Scaled around a quantum-executed module"):
            call()


def test_settings_are_those_of_the_new_model():
    classifier, other = hardened(), hardened()
    before = classifier.module
    classifier.set_params(model=other.model, shots=100)
    assert classifier.module is other.module
    assert (before.shots, other.shots) == (None, 100)
    with pytest.raises(InvalidInputError):
        classifier.set_params(shots=77, model=nn.Linear(2, 2))
    assert classifier.shots == 100
    with pytest.raises(InvalidInputError):
        classifier.set_params(shots=0, model=hardened().model)
    assert classifier.module is other.module
