"""The threat ladder: what each rung attacks, what it costs, and that luck is not selected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from victims import (
    AUTO_PGD,
    FGSM,
    HOP_SKIP_JUMP,
    PGD,
    QUICK,
    SQUARE,
    Attack,
    NoisyPredict,
    classifier,
    digits,
    network,
    noisy,
    quantum,
)

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.records import Cell
from qnad_art.benchmark.run.cell import measure
from qnad_art.benchmark.threats.ladder import Examples, adversarial_examples, rungs_of
from qnad_art.benchmark.threats.scoring import score
from qnad_art.benchmark.threats.victim import derived, frozen, reseed, with_module
from qnad_art.errors import InvalidInputError, QnadError
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.network.module import SHOTS_PERCENTILE

X, Y, EPS = digits().x[:40], digits().y[:40], 0.12


def examples(victim, attack, rung, *, eps=EPS, protocol=QUICK, seed=0, store=None, plain=None):
    plain = classifier() if plain is None else plain
    return adversarial_examples(
        victim, plain, attack, X, Y, rung=rung, eps=eps, protocol=protocol, seed=seed, store=store
    )


def cell(rung=None, *, attack="pgd", eps=EPS, kind="attack"):
    where = {"model": "net", "data": "digits", "device": "none", "defence": "noise", "seed": 0}
    attacked = {"attack": attack, "eps": eps, "rung": rung} if kind == "attack" else {}
    return Cell(kind=kind, **where, **attacked)


class Shelf(dict):
    """An example store in memory."""

    load = dict.get
    save = dict.__setitem__


@pytest.mark.parametrize("rung", ["white-box", "adaptive", "persistent"])
def test_without_a_defence_no_attack_is_made_twice(rung):
    plain, shelf = classifier(), Shelf()
    found = examples(plain, PGD, rung, plain=plain, store=shelf)
    assert "white-box" not in shelf
    transfer = examples(plain, PGD, "transfer", plain=plain)
    assert np.array_equal(shelf["transfer"].x, transfer.x)
    # A victim that is equal to the network but not the same object is attacked by itself.
    expected = examples(replaced_module(plain), PGD, rung, plain=plain)
    assert np.array_equal(found.x, expected.x)


def replaced_module(of):
    return with_module(of, of.model)


def measured(victim, attack, rung, *, seed=0, reuse=None, eps=EPS, protocol=QUICK):
    return measure(
        victim,
        classifier(),
        cell(rung, eps=eps),
        attack,
        X,
        Y,
        protocol=protocol,
        seed=seed,
        reuse=reuse,
    )


class Memory(dict):
    """An example store."""

    def load(self, origin):
        arrays = self.get(origin)
        return None if arrays is None else Examples.from_arrays(arrays)

    def save(self, origin, found):
        self[origin] = found.arrays()


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(64, 10)
        rng = np.random.default_rng(0)
        self.linear.weight.data = torch.as_tensor(rng.normal(size=(10, 64)), dtype=torch.float32)
        self.linear.bias.data.zero_()

    def forward(self, x):
        return self.linear(self.flatten(x))


class NoisyGradients(nn.Module):
    """Logits hardly have noise, gradients little else."""

    def __init__(self):
        super().__init__()
        self.network, self.noise = network(), NoiseSource(0)

    def forward(self, x):
        with self.noise.forward_pass():
            logits = self.network(x)
            shift = (x * self.noise.normal_like(x)).sum((1, 2, 3))[:, None]
            noise = self.noise.normal_like(logits)
            return logits + 0.01 * noise + 5 * noise * (shift - shift.detach())


class CoinFlips(nn.Module):
    """Says class 0 or 1 by chance alone."""

    def __init__(self):
        super().__init__()
        self.noise = NoiseSource(0)

    def forward(self, x):
        with self.noise.forward_pass():
            logits = self.noise.normal_like(x[:, 0, 0, :2])
        return nn.functional.pad(logits, (0, 8), value=-9.0) + 0 * x.sum((1, 2, 3))[:, None]


@pytest.mark.parametrize("rung", ["transfer", "white-box", "adaptive", "surrogate", "seed-known"])
def test_fgsm_on_a_linear_model_has_a_known_answer(rung):
    victim = classifier(Linear())
    weight = victim.model.linear.weight.detach().numpy().astype(np.float64)
    logits = X.reshape(40, 64).astype(np.float64) @ weight.T
    likely = np.exp(logits - logits.max(1, keepdims=True))
    gradient = (likely / likely.sum(1, keepdims=True) - np.eye(10)[Y]) @ weight
    known = np.clip(X + EPS * np.sign(gradient).reshape(X.shape), 0, 1)
    found = examples(victim, FGSM, rung, plain=victim).x
    np.testing.assert_allclose(found.reshape(X.shape), known, atol=1e-6)


def test_rungs_by_kind_of_attack():
    assert "black-box" not in rungs_of(PGD)
    assert set(rungs_of(SQUARE)) == {"transfer", "black-box", "persistent"}
    with pytest.raises(InvalidInputError, match=r"gradient attack .*'black-box'; valid: transfer"):
        examples(noisy(), PGD, "black-box")
    with pytest.raises(InvalidInputError, match="query attack"):
        examples(noisy(), SQUARE, "white-box")


def test_transfer_examples_are_those_of_the_plain_network():
    plain, victim = classifier(), noisy()
    found = examples(victim, PGD, "transfer", plain=plain)
    np.testing.assert_array_equal(found.x, examples(plain, PGD, "white-box", plain=plain).x)
    assert found.gradients == 40 * 6  # six steps
    assert examples(victim, PGD, "white-box").gradients == 40 * 6


def test_surrogate_follows_gradients_of_the_exact_expectation():
    found = examples(quantum(shots=256), FGSM, "surrogate")
    exact = examples(quantum(shots=None, percentile=SHOTS_PERCENTILE), FGSM, "white-box")
    np.testing.assert_array_equal(found.x, exact.x)


def test_adaptive_of_a_deterministic_network_is_one_point():
    victim = classifier()
    found = examples(victim, PGD, "adaptive")
    assert [(point.samples, point.gradients) for point in found.curve] == [(1, "true")]
    np.testing.assert_array_equal(found.x, examples(victim, PGD, "white-box").x)
    assert found.queries == examples(victim, PGD, "white-box").queries


@pytest.mark.parametrize("eps", [0.05, 0.12, 0.6])
def test_adaptive_raises_samples_until_accuracy_stops_falling(eps):
    found = examples(noisy(), PGD, "adaptive", eps=eps)
    curve = [point.accuracy for point in found.curve]
    samples = [point.samples for point in found.curve]
    assert samples == list(QUICK.eot_samples)[: len(samples)]
    assert all(later < earlier for earlier, later in pairwise(curve[:-1]))
    if len(curve) < len(QUICK.eot_samples):
        assert curve[-1] >= min(curve[:-1])
    gradients = sum(samples) * 40 * 6
    assert found.gradients == gradients
    assert found.queries >= len(curve) * QUICK.selection_draws * 40


def test_averaged_gradients_see_through_noise():
    victim = classifier(NoisyGradients())
    white_box, adaptive = (measured(victim, FGSM, rung) for rung in ("white-box", "adaptive"))
    assert adaptive.accuracy.value < white_box.accuracy.value - 0.15
    assert adaptive.curve[-1].samples == QUICK.eot_samples[-1]


def test_gradients_are_taken_through_saturation_where_there_is_any():
    hiding = quantum(shots=None, percentile=80)
    found = examples(hiding, PGD, "adaptive", eps=0.1)
    assert [point.gradients for point in found.curve] == ["true", "unsaturated"]
    accuracies = [point.accuracy for point in found.curve]
    both = score(hiding, found.x, Y, draws=1, seed=0).accuracy
    assert accuracies[1] < accuracies[0]
    assert both <= min(accuracies)
    assert {p.gradients for p in examples(quantum(shots=None), PGD, "adaptive").curve} == {"true"}


def test_luck_is_not_selected():
    """Candidates that are all worth the same: on fresh draws the chosen one is no better."""
    protocol = QUICK.model_copy(
        update={"eot_samples": (1, 2, 3, 4, 5, 6, 7), "selection_draws": 1, "draws": 40}
    )
    victim = classifier(CoinFlips())
    where = Y < 2
    found = examples(victim, PGD, "adaptive", protocol=protocol)
    fresh = score(victim, found.x[where], Y[where], draws=400, seed=9)
    assert fresh.accuracy == pytest.approx(0.5, abs=0.05)


def test_a_known_draw_is_attacked_and_judged_in_that_draw():
    victim = noisy(0.5)
    found = examples(victim, PGD, "seed-known")
    assert found.x.shape == (2, *X.shape)
    for draw in range(2):
        reseed(victim, derived(0, "known", draw))
        with frozen(victim):
            # the same images at the same places of a batch as in the attack
            outputs = victim.predict(found.x[draw], batch_size=QUICK.batch_size)
        np.testing.assert_allclose(outputs, found.outputs[draw], atol=1e-5)


@pytest.mark.parametrize("attack", [FGSM, PGD, AUTO_PGD])
def test_knowing_the_draw_is_worth_more_than_not(attack):
    victim = noisy(0.4)
    known, unknown = (measured(victim, attack, rung) for rung in ("seed-known", "white-box"))
    assert known.accuracy.value < unknown.accuracy.value - 0.05
    assert known.draws == QUICK.seed_known_draws


def test_an_attack_that_drops_images_still_meets_the_draw_that_it_knows():
    """AutoPGD goes on with the images that hold; one at a time they all have the same place."""
    victim = noisy(0.4)
    found = examples(victim, AUTO_PGD, "seed-known")
    reseed(victim, derived(0, "known", 1))
    with frozen(victim):
        outputs = np.concatenate([victim.predict(x[None]) for x in found.x[1]])
    np.testing.assert_allclose(outputs, found.outputs[1], atol=1e-5)


def test_black_box_averages_its_queries():
    victim = noisy()
    found = examples(victim, SQUARE, "black-box")
    assert found.gradients == 0
    once = examples(classifier(), SQUARE, "black-box")
    assert found.queries > 3 * once.queries
    assert np.abs(found.x - X).max() <= EPS + 1e-6


def test_a_query_attack_that_passes_on_float64():
    found = examples(noisy(), HOP_SKIP_JUMP, "transfer", eps=None)
    assert found.x.dtype == np.float32
    assert found.queries > 0


@pytest.mark.parametrize(("attack", "origin"), [(PGD, "adaptive"), (SQUARE, "black-box")])
def test_persistent_submits_the_strongest_examples_again_and_again(attack, origin):
    store, victim = Memory(), noisy()
    found = measured(victim, attack, "persistent", reuse=store)
    assert found.draws == QUICK.persistent_draws
    correct = found.correct.unpack()
    assert found.accuracy.value == correct.all(axis=0).mean() == found.every_draw.value
    assert found.accuracy.value < correct.mean()
    np.testing.assert_array_equal(store[origin]["x_adv"], found.arrays["x_adv"])


@pytest.mark.parametrize("rung", rungs_of(PGD))
def test_figures_do_not_depend_on_what_ran_before_or_is_in_store(rung):
    store, victim = Memory(), noisy()
    first = measured(victim, PGD, rung, reuse=store)
    again = measured(victim, PGD, rung, reuse=store)
    victim.predict(X)
    fresh = measured(noisy(), PGD, rung)
    for other in (again, fresh):
        assert replace(other, arrays={}) == replace(first, arrays={})
        np.testing.assert_array_equal(other.arrays["x_adv"], first.arrays["x_adv"])
    assert store
    if rung != "transfer":
        different = measured(victim, PGD, rung, seed=1).arrays["x_adv"]
        assert not np.array_equal(different, first.arrays["x_adv"])


def test_examples_survive_their_arrays(tmp_path):
    found = examples(noisy(), PGD, "seed-known")
    np.savez(tmp_path / "examples.npz", **found.arrays())
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as arrays:
        again = Examples.from_arrays(arrays)
    np.testing.assert_array_equal(again.outputs, found.outputs)
    np.testing.assert_array_equal(again.x, found.x)
    adaptive = examples(noisy(), PGD, "adaptive")
    again = Examples.from_arrays(adaptive.arrays())
    assert (again.curve, again.gradients) == (adaptive.curve, adaptive.gradients)


@dataclass(frozen=True)
class Made:
    """An attack that returns what it is told to."""

    change: object
    name: str = "made up"
    kind: str = "gradient"
    norm: str = "inf"
    single_step: bool = True

    def make(self, classifier, eps, *, batch_size):
        made = self

        class Returns:
            def generate(self, x, y):
                return made.change(x)

        return Returns()


def test_the_budget_and_the_range_are_enforced():
    found = examples(classifier(), Made(lambda x: x + 1), "white-box").x
    np.testing.assert_allclose(found, np.clip(X + EPS, 0, 1), atol=1e-6)
    found = examples(classifier(), Made(lambda x: x * 0 + 0.5, norm="2"), "white-box").x
    lengths = np.linalg.norm((found - X).reshape(40, -1), axis=1)
    assert lengths == pytest.approx(EPS, abs=1e-5)


@pytest.mark.parametrize("change", [lambda x: x * np.nan, lambda x: x[:-1]])
def test_what_is_no_image_is_an_error(change):
    with pytest.raises(QnadError, match="made up returned"):
        examples(classifier(), Made(change), "white-box")


def test_a_measured_cell_says_what_it_rests_on():
    victim = noisy()
    found = measured(victim, PGD, "white-box")
    assert (found.images, found.draws) == (40, QUICK.draws)
    assert found.correct.unpack().mean() == pytest.approx(found.accuracy.value)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert (found.norm, found.single_step) == ("inf", False)
    assert found.perturbation["linf"] == pytest.approx(EPS, rel=1e-4)
    assert found.arrays["predicted"].shape == (QUICK.draws, 40)
    assert not found.curve
    assert measured(victim, FGSM, "adaptive").curve


def test_clean_cells_and_deterministic_networks():
    arguments = {"protocol": QUICK, "seed": 0}
    noise = measure(noisy(), classifier(), cell(kind="clean"), None, X, Y, **arguments)
    assert noise.draws == QUICK.draws
    still = measure(classifier(), classifier(), cell(kind="clean"), None, X, Y, **arguments)
    assert still.draws == 1
    assert still.accuracy == still.majority == still.every_draw
    known = (classifier().predict(X).argmax(1) == Y).mean()
    assert still.accuracy.value == pytest.approx(known)


def test_noise_only_in_predict_is_scored_with_that_noise():
    found = measured(classifier(kind=NoisyPredict), PGD, "white-box")
    assert found.draws == QUICK.draws
    assert measured(classifier(kind=NoisyPredict), PGD, "white-box").correct == found.correct


def test_a_cell_and_an_attack_must_fit():
    with pytest.raises(InvalidInputError, match="clean"):
        measure(noisy(), classifier(), cell(kind="clean"), PGD, X, Y, protocol=QUICK, seed=0)
    with pytest.raises(InvalidInputError, match="attack"):
        measure(noisy(), classifier(), cell("transfer"), None, X, Y, protocol=QUICK, seed=0)


def test_attacks_by_name_are_on_the_ladder():
    attack = AttackSpec.parse({"name": "pgd", "max_iter": 3})
    found = measured(noisy(), attack, "adaptive")
    assert found.norm == "inf"
    assert found.accuracy.value < 0.9
    assert isinstance(attack.make(classifier(), EPS, batch_size=8).estimator, PyTorchClassifier)
    assert Attack("FastGradientMethod").single_step
