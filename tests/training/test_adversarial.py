"""The loop of tuned crosstalk and of adversarial fine-tuning: attack, choice of epoch, resume."""

from dataclasses import replace

import pytest
import torch
from art_fixtures import network
from small_runs import TUNING as QUICK
from small_runs import data, executed, tuning
from torch import nn
from torch.nn import functional

from qnad_art import convert
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.training.adversarial import (
    AdversarialSettings,
    TuningEpoch,
    perturb,
    split_validation,
)
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.execution import Circuits
from qnad_art.training.finetune import adversarial_finetune, finetuning_loop


class Interrupted(Exception):
    pass


def finetuning(shots: int | None = None, **settings) -> AdversarialLoop:
    model = network() if shots is None else executed(shots)
    return finetuning_loop(
        model, *data(), AdversarialSettings(**{**QUICK, "learning_rate": 1e-3, **settings})
    )


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt(result: TuningEpoch) -> None:
    if result.epoch == 2:
        raise Interrupted


class TestPerturb:
    @pytest.fixture
    def victim(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))

    @staticmethod
    def attack(victim, x, y, seed=0, **settings):
        given = {"epsilon": 0.1, "steps": 3, "clip": (0.0, 1.0), **settings}
        return perturb(victim, x, y, generator=torch.Generator().manual_seed(seed), **given)

    @pytest.mark.parametrize("steps", [1, 3, 10])
    def test_stays_within_the_budget_and_raises_the_loss(self, victim, steps):
        x, y = torch.rand(64, 1, 4, 4), torch.arange(64) % 3
        found = self.attack(victim, x, y, steps=steps, clip=(0.05, 0.95))
        assert (found - x.clamp(0.05, 0.95)).abs().max() <= 0.1 + 1e-6
        assert found.min() >= 0.05
        assert found.max() <= 0.95
        loss = functional.cross_entropy(victim(found), y)
        assert loss > functional.cross_entropy(victim(x), y) + 0.03
        assert not found.requires_grad
        assert all(parameter.grad is None for parameter in victim.parameters())

    def test_the_random_start_is_the_generators(self, victim):
        x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
        first = self.attack(victim, x, y)
        torch.rand(5)  # the global generator plays no part
        assert torch.equal(first, self.attack(victim, x, y))
        assert not torch.equal(first, self.attack(victim, x, y, seed=1))


def test_validation_is_apart_from_training_and_seeded():
    x, y = torch.arange(50.0)[:, None], torch.arange(50)
    settings = AdversarialSettings(validation_fraction=0.2, seed=3, clip=(0, 49))
    training, validation = split_validation(x, y, settings)
    assert len(validation[0]) == 10
    assert sorted([*training[1].tolist(), *validation[1].tolist()]) == list(range(50))
    for images_, labels in (training, validation):
        assert torch.equal(images_[:, 0].long(), labels)
    assert torch.equal(split_validation(x, y, settings)[1][1], validation[1])
    other = split_validation(x, y, replace(settings, seed=4))[1][1]
    assert not torch.equal(other, validation[1])
    many = torch.zeros(30_000)
    assert len(split_validation(many, many, settings)[1][0]) == 1000


@pytest.mark.parametrize("labels", [9, 11])
def test_labels_of_another_number_are_refused(labels):
    with pytest.raises(InvalidInputError, match=f"10 inputs for {labels} labels"):
        split_validation(torch.zeros(10), torch.zeros(labels), AdversarialSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 8.0}, "batch_size is 8.0"),
        ({"patience": 0}, "patience is 0"),
        ({"attack_steps": True}, "attack_steps is True"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"robust_weight": -0.1}, "0 to 1"),
        ({"validation_fraction": 0.0}, "between 0 and 1"),
        ({"clip": (1.0, 0.0)}, "lowest, highest"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"resume": True}, "checkpoint"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        AdversarialSettings(**settings)


def test_the_budget_of_the_attack_grows_over_a_third_of_the_steps(monkeypatch):
    seen = []
    attack = AdversarialLoop._attack

    def record(self, x, y, epsilon, steps, **options):
        seen.append((steps, epsilon))
        return attack(self, x, y, epsilon, steps, **options)

    monkeypatch.setattr(AdversarialLoop, "_attack", record)
    finetuning(epochs=3, batch_size=32).run()
    training = [epsilon for steps, epsilon in seen if steps == 1]
    assert len(training) == 15
    assert training[0] == pytest.approx(0.02 * 0.1)
    assert training == sorted(training)
    assert training[4] < 0.1
    assert training[5:] == [0.1] * 10  # from the second epoch on
    assert {epsilon for steps, epsilon in seen if steps == 10} == {0.1}  # validation


def test_patience_stops_and_the_best_epoch_is_the_result(monkeypatch):
    scores = iter([(0.5, 0.5), (0.7, 0.6), (0.7, 0.6), (0.4, 0.6), (0.9, 0.9)])
    monkeypatch.setattr(AdversarialLoop, "_validate", lambda self: next(scores))
    results = []
    loop = finetuning(
        epochs=9, patience=2, on_epoch=lambda _: results.append(loop.unknowns.result())
    )
    best = loop.run()
    assert len(loop.history) == 4
    assert equal(best, results[1])  # of two as good, the first
    assert not equal(best, results[3])


def test_steps_are_told_as_they_are_done_and_go_on_after_a_checkpoint(tmp_path):
    told: list[tuple[int, int]] = []
    settings = {"epochs": 3, "checkpoint": tmp_path / "run"}
    settings |= {"on_step": lambda done, steps: told.append((done, steps))}
    with pytest.raises(Interrupted):
        finetuning(on_epoch=interrupt, **settings).run()
    assert told == [(done, 9) for done in range(1, 7)]  # 3 batches of the 135 images an epoch
    finetuning(resume=True, **settings).run()
    assert told == [(done, 9) for done in range(1, 10)]


def test_a_loss_that_is_not_finite_says_so():
    with pytest.raises(InvalidInputError, match="lower the learning rate of 1e\\+30"):
        finetuning(learning_rate=1e30).run()


@pytest.mark.parametrize("make", [tuning, finetuning])
@pytest.mark.parametrize("shots", [None, 64])
def test_resume_is_bit_for_bit(make, shots, tmp_path):
    straight = make(shots, epochs=4, learning_rate=0.01)
    best = straight.run()
    settings = {"epochs": 4, "learning_rate": 0.01, "checkpoint": tmp_path / "run"}
    with pytest.raises(Interrupted):
        make(shots, on_epoch=interrupt, **settings).run()
    seen: list[TuningEpoch] = []
    resumed = make(shots, on_epoch=seen.append, resume=True, **settings)
    assert equal(resumed.run(), best)
    assert resumed.history == straight.history
    assert [result.epoch for result in seen] == [3, 4]
    assert equal(resumed.unknowns.result(), straight.unknowns.result())
    again = make(shots, on_epoch=interrupt, resume=True, **settings)  # nothing is left to do
    assert equal(again.run(), best)


def test_the_shot_noise_goes_on_where_it_was(tmp_path, monkeypatch):
    """Without the noise's state the test above would fail: what it shows does depend on it."""
    straight = tuning(64, epochs=3)
    straight.run()
    settings = {"epochs": 3, "checkpoint": tmp_path / "run"}
    monkeypatch.setattr(Circuits, "noise", lambda self: {})
    with pytest.raises(Interrupted):
        tuning(64, on_epoch=interrupt, **settings).run()
    resumed = tuning(64, resume=True, **settings)
    resumed.run()
    assert resumed.history[:2] == straight.history[:2]
    assert not equal(resumed.unknowns.state(), straight.unknowns.state())


def test_resume_without_a_file_starts_anew(tmp_path):
    begun = tuning(resume=True, checkpoint=tmp_path / "none")
    assert equal(begun.run(), tuning().run())
    assert (tmp_path / "none").is_file()


@pytest.mark.parametrize(
    ("shots", "settings", "named"),
    [
        (None, {"epsilon": 0.2}, "epsilon is 0.1 there and 0.2 here"),
        (None, {"epochs": 3, "seed": 1}, "epochs is 1 there and 3 here.*seed is 0 there"),
        (None, {"codebook": "placed"}, "codebook is 'all' there and 'placed' here"),
        (64, {}, "shots is None there and 64 here"),
    ],
)
def test_resume_of_another_run_is_refused(shots, settings, named, tmp_path):
    same = {"epochs": 1, "checkpoint": tmp_path / "run"}
    tuning(**same).run()
    with pytest.raises(ArtifactError, match=named):
        tuning(shots, resume=True, **{**same, **settings}).run()


def test_resume_on_other_data_weights_or_noise_is_refused(tmp_path):
    quick = {**QUICK, "epochs": 1, "learning_rate": 0.1}
    settings = Tuned(**quick, checkpoint=tmp_path / "run")
    x, y = data()
    settings.plan(executed(), x, y)
    settings = replace(settings, resume=True)
    settings.plan(executed(), x, y)
    other = executed()
    with torch.no_grad():
        next(other.parameters())[0] += 0.1
    scaled = executed()
    next(iter(scaled.layers.values())).input_scale *= 2
    for module, inputs in ((executed(), x.flip(0)), (other, x), (scaled, x)):
        with pytest.raises(ArtifactError, match="data and network"):
            settings.plan(module, inputs, y)
    with pytest.raises(
        ArtifactError, match=r"device is 'ibm_nairobi' there and 'ibm_nairobi\*0.5' here"
    ):
        settings.plan(convert(network(), x, device="ibm_nairobi*0.5"), x, y)
    finetune = AdversarialSettings(**quick)
    finetune = replace(finetune, checkpoint=settings.checkpoint, resume=True)
    with pytest.raises(ArtifactError, match="codebook is 'all' there and None here"):
        adversarial_finetune(network(), x, y, finetune)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run"
    settings = {"epochs": 1, "checkpoint": path}
    tuning(**settings).run()
    whole = path.read_bytes()

    def resume() -> None:
        tuning(resume=True, **settings).run()

    resume()
    flipped = bytearray(whole)
    flipped[-9] ^= 1
    for damaged in (whole[:-5], b"", b"{}", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="run"):
            resume()
    path.write_bytes(whole)
    tensors, header = load_tensors(path, kind="tuning-checkpoint")
    generator = tensors.pop("generator")
    save_tensors(path, tensors, kind="tuning-checkpoint", header=header)
    with pytest.raises(ArtifactError, match=r"incomplete checkpoint.*generator"):
        resume()
    tensors["generator"] = generator
    del header["history"]
    save_tensors(path, tensors, kind="tuning-checkpoint", header=header)
    with pytest.raises(ArtifactError, match=r"incomplete checkpoint.*history"):
        resume()


@pytest.mark.parametrize("version", [None, 1, 4])
def test_a_checkpoint_of_another_version_is_refused(version, tmp_path):
    path = tmp_path / "run"
    settings = {"epochs": 1, "checkpoint": path}
    tuning(**settings).run()
    tensors, header = load_tensors(path, kind="tuning-checkpoint")
    header = {**header, "version": version}
    save_tensors(path, tensors, kind="tuning-checkpoint", header=header)
    with pytest.raises(ArtifactError, match=f"version {version}; .* from version 5"):
        tuning(resume=True, **settings).run()


def test_optimised_on_the_expectation_and_validated_with_shots():
    def shots_of_passes(**settings) -> list[int | None]:
        loop = tuning(64, epochs=1, refresh=0, **settings)
        seen: list[int | None] = []
        loop.network.register_forward_hook(lambda module, *_: seen.append(module.shots))
        loop.run()
        assert loop.network.shots == 64
        return seen

    steps = 2 * 3  # batches of an attack's pass and the pass that is learnt from, three
    assert shots_of_passes(shot_noise=False) == [None] * steps + [64] * 23
    assert shots_of_passes() == [64] * (steps + 23)


@pytest.mark.parametrize("make", [tuning, finetuning])
@pytest.mark.parametrize("shots", [None, 64])
def test_bfloat16(make, shots):
    loop = make(shots, precision="bfloat16", epochs=1)
    best = loop.run()
    assert all(torch.isfinite(value).all() for value in best.values())
    assert not equal(best, make(shots, epochs=1).unknowns.result())


def test_a_pass_under_autocast_leaves_nothing_behind():
    x, module, fresh = data()[0], executed(64), executed(64)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16), module.frozen_draw():
            module(x)
        fresh.noise.reseed(1)
        module.noise.reseed(1)
        assert torch.equal(module(x), fresh(x))


class TestFineTuning:
    SETTINGS = AdversarialSettings(
        epochs=6, batch_size=32, epsilon=0.15, learning_rate=2e-3, attack_steps=2
    )

    @staticmethod
    def attacked_loss(model, x, y) -> float:
        generator = torch.Generator().manual_seed(7)
        found = perturb(model, x, y, epsilon=0.15, steps=5, clip=(0.0, 1.0), generator=generator)
        return functional.cross_entropy(model(found), y).item()

    def test_it_defends(self):
        x, y = data(300)
        tuned = adversarial_finetune(network(), x, y, self.SETTINGS)
        assert self.attacked_loss(tuned, x, y) < 0.8 * self.attacked_loss(network(), x, y)
        accuracy = (tuned(x).argmax(1) == y).float().mean()
        assert accuracy > (network()(x).argmax(1) == y).float().mean() - 0.1

    def test_the_original_stays_as_it_is(self):
        model, (x, y) = network(), data()
        first = next(model.parameters()).requires_grad_(False)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tuned = adversarial_finetune(model, x, y, replace(self.SETTINGS, epochs=1))
        assert equal(dict(model.state_dict()), before)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert [p.requires_grad for p in tuned.parameters()] == [
            p.requires_grad for p in model.parameters()
        ]
        assert not torch.equal(next(tuned.parameters()), first)  # frozen or not, it is trained
        assert all(parameter.grad is None for parameter in tuned.parameters())

    def test_batch_norm_and_modes(self):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
        )
        model.train()
        model[1].eval()
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        tuned = adversarial_finetune(model, *data(), replace(self.SETTINGS, epochs=1))
        assert [part.training for part in tuned.modules()] == [
            part.training for part in model.modules()
        ]
        assert equal(dict(tuned.named_buffers()), buffers)
        assert not torch.equal(tuned[1].weight, model[1].weight)

    def test_through_noise_and_crosstalk(self, random_crosstalk):
        module, (x, y) = random_crosstalk(executed(), most=2), data()
        tuned = adversarial_finetune(module, x, y, self.SETTINGS)
        assert self.attacked_loss(tuned, x, y) < 0.9 * self.attacked_loss(module, x, y)
        assert tuned.plan.histogram() == module.plan.histogram()

    def test_a_network_without_parameters_is_refused(self):
        with pytest.raises(InvalidInputError, match="no parameters"):
            adversarial_finetune(nn.Flatten(), *data(), self.SETTINGS)
