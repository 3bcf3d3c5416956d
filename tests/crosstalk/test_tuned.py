import copy
import dataclasses
import warnings

import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art_fixtures import images, network, plain
from torch import nn

from qnad_art import QNAD, QuantumExecutedClassifier, convert
from qnad_art.circuits.lever import ENOUGH, find_lever
from qnad_art.crosstalk import build_strategy
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.device.catalogue import load_device
from qnad_art.errors import DeviceError, InvalidInputError, QnadWarning, UnknownNameError
from qnad_art.placement.placement import device_placement
from qnad_art.training.adversarial import TuningEpoch
from qnad_art.training.adversarial_loop import AdversarialLoop

FEW = {"epochs": 2, "batch_size": 64, "epsilon": 0.1, "learning_rate": 0.1}


def data(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    train = images("digits", "train")
    return torch.tensor(train.x[:count]), torch.tensor(train.y[:count])


@pytest.fixture
def module():
    return convert(network(), data()[0], device="ibm_nairobi", seed=0)


def test_the_gradient_passes_straight_through_the_choice_of_the_codeword():
    """Values are those of the codeword; the gradient is that of the effective weight a2."""
    torch.manual_seed(0)
    x = torch.randn(1, 6, dtype=torch.float64)
    module = convert(nn.Linear(6, 2).double(), x, device="ibm_nairobi", gain="raw")
    layer = module.network
    injected = next(i for i, s in enumerate(module.placement.sites) if s.neighbour is not None)
    layer.assign(torch.full((2, 6), injected), torch.full((2, 6), 2, dtype=torch.int8))
    plain = layer(x)[0].detach()
    wanted = torch.full((2, 6), 0.3, dtype=torch.float64, requires_grad=True)
    layer.tune(wanted)
    value = layer(x)[0]
    assert torch.allclose(value.detach(), plain, atol=1e-12)
    (gradient,) = torch.autograd.grad(value[1], wanted)
    layer.tune(None)
    # y = s_x s_w Σ a2 x̂ + …, and s_x x̂ = x.
    largest = layer.weight.detach()[1].abs().max()
    torch.testing.assert_close(gradient[1], largest * x[0])
    assert not gradient[0].any()


def test_the_plan_is_one_that_the_device_can_run(module):
    plan = Tuned(fraction=0.2, max_pairs=3, **FEW).plan(module, *data())
    module.plan = plan  # checks sites, shapes and neighbours
    assert 0 < plan.achieved <= 0.2
    assert {abs(k) for layer in plan.histogram().values() for k in layer} <= {0, 1, 2, 3}
    assert {k < 0 for layer in plan.histogram().values() for k in layer if k} == {True, False}
    assert plan.strategy == "tuned"
    assert plan.settings["epsilon"] == 0.1


def test_biases_that_are_products_are_moved_too():
    x, y = data()
    module = convert(network(), x, device="ibm_nairobi", bias="quantum", headroom=1.5, seed=0)
    weights = sum(layer.weight.numel() + len(layer.bias) for layer in module.layers.values())
    plan = Tuned(fraction=0.3, **FEW).plan(module, x, y)
    assert plan.weights == weights
    for name, layer in module.layers.items():
        assert plan.layers[name].pairs[:, -1].any()
        free, before = layer.bias.detach(), layer.kernels().bias.clone()
        assert (before - free).abs().max() < 0.15 * free.abs().max()  # qubits differ
    module.plan = plan
    for layer in module.layers.values():
        assert (layer.kernels().bias - layer.bias).abs().max() > 0.02


def test_the_module_is_left_as_it_is(module):
    x, y = data()
    before, weights = module(x), [p.detach().clone() for p in module.parameters()]
    Tuned(**FEW).plan(module, x, y)
    assert torch.equal(module(x), before)
    assert all(torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("shots", [None, 64])
def test_the_same_seed_gives_the_same_plan(module, shots):
    module.shots = shots

    def pairs(seed: int) -> torch.Tensor:
        plan = Tuned(seed=seed, **FEW).plan(module, *data())
        return torch.cat([layer.pairs.flatten() for layer in plan.layers.values()])

    assert torch.equal(pairs(1), pairs(1))
    assert not torch.equal(pairs(1), pairs(2))


def test_epochs_are_reported_and_the_plan_survives_a_file(module, tmp_path):
    seen: list[TuningEpoch] = []
    plan = Tuned(on_epoch=seen.append, **FEW).plan(module, *data())
    assert [(e.epoch, e.epochs) for e in seen] == [(1, 2), (2, 2)]
    assert all(0 <= e.robust <= e.clean <= 1 for e in seen)
    plan.save(tmp_path / "plan")
    loaded = type(plan).load(tmp_path / "plan")
    assert loaded.histogram() == plan.histogram()
    assert loaded.settings == dict(plan.settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pairs": 0}, "max_pairs"),
        ({"attack_steps": 1.5}, "attack_steps"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"robust_weight": 1.1}, "robust_weight"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"fraction": 2.0}, "fraction"),
        ({"max_pairs": 99}, "max_pairs=99"),
    ],
)
def test_bad_settings_are_refused(settings, message, module):
    with pytest.raises(InvalidInputError, match=message):
        Tuned(**{**FEW, **settings}).plan(module, *data(40))


def test_by_name():
    assert build_strategy("tuned", epochs=3) == dataclasses.replace(Tuned(), epochs=3)
    with pytest.raises(UnknownNameError, match="epochs"):
        build_strategy("tuned", epoch=3)


def test_too_few_inputs(module):
    with pytest.raises(InvalidInputError, match="too few"):
        Tuned(**FEW).plan(module, *data(1))


@pytest.mark.parametrize(
    ("codebook", "order"),
    [
        ("all", "stretched"),
        ("one-hop", "stretched"),
        ("placed", "stretched"),
        ("all", "aware"),
        ("all", "plain"),
    ],
)
@pytest.mark.parametrize("device", ["ibm_nairobi", "ibm_nairobi[crosstalk=paper]"])
def test_weights_choose_among_the_edges_of_the_codebook(codebook, order, device):
    module = convert(network(), data()[0], device=device, seed=0, order=order)
    loop = Tuned(fraction=0.2, codebook=codebook, **FEW).loop(module, *data())
    placed = loop.unknowns.placed
    plan = Tuned(fraction=0.2, codebook=codebook, **FEW).plan(module, *data())
    module.plan = plan
    assert 0 < plan.achieved <= 0.2
    partners, moved = set(), 0
    qubit = torch.tensor([site.qubit for site in plan.sites])
    for name, layer in plan.layers.items():
        injected = plan.words(layer)
        moved += int((layer.site != placed[name])[injected].sum())
        stays = layer.site[~injected].long(), placed[name][~injected].long()
        if module.placement.disturbed:  # on its qubit, but it may meet a word
            stays = qubit[stays[0]], qubit[stays[1]]
        assert torch.equal(*stays)
        partners |= {plan.sites[i].partner is None for i in layer.site[injected].tolist()}
    assert partners == ({True, False} if (codebook, order) == ("all", "stretched") else {True})
    assert (moved > 0) == (codebook != "placed" and order == "stretched")


def test_ranking_again_moves_the_crosstalk_within_the_fraction(module):
    ranked = []
    settings = {**FEW, "epochs": 4, "fraction": 0.1, "refresh": 2}
    loop = Tuned(**settings, on_epoch=lambda _: ranked.append(critical())).loop(module, *data())

    def critical() -> torch.Tensor:
        return torch.cat([free.flatten() for free in loop.unknowns.free.values()])

    first = critical()
    loop.run()
    assert torch.equal(ranked[0], first)
    assert not torch.equal(ranked[1], ranked[0])
    assert not torch.equal(ranked[2], ranked[1])
    assert torch.equal(ranked[3], ranked[2])  # in the first half only
    assert all(0.09 < chosen.float().mean() <= 0.1 for chosen in ranked)
    injected = [v != 0 for name, v in loop.unknowns.result().items() if name.endswith(".pairs")]
    assert not torch.cat([part.flatten() for part in injected])[~ranked[3]].any()
    assert 0 < Tuned(**settings).plan(module, *data()).achieved <= 0.1


def test_nothing_is_injected_where_injection_changes_nothing():
    module = convert(network(), data()[0], device="ideal[crosstalk=paper]")
    assert Tuned(**FEW).plan(module, *data()).injected == 0


class TestLever:
    """Devices on which crosstalk can do little say so before anything is tuned or simulated."""

    def test_no_lever_is_an_error_before_the_network_is_converted(self, monkeypatch):
        monkeypatch.setattr(QuantumExecutedClassifier, "from_art", None)  # it would take minutes
        x, y = (tensor.numpy() for tensor in data(20))
        for device in ("ibm_nairobi[zz=0,crosstalk=echoed]", "ideal[crosstalk=static-zz]"):
            defence = QNAD(plain(), device, strategy="tuned")
            with pytest.raises(DeviceError, match=r"no lever on .* up to 8 units .*ibm_nairobi"):
                defence.fit(x, y)

    def test_tuning_a_module_without_a_lever_is_an_error(self):
        module = convert(network(), data()[0], device="ideal[crosstalk=echoed]")
        with pytest.raises(DeviceError, match="no lever"):
            Tuned(**FEW).plan(module, *data())

    def test_one_hop_words_of_gates_are_no_lever_in_time(self):
        weak = load_device("ibm_nairobi[zz=0.01,crosstalk=static-zz]")
        sites = device_placement(weak).sites
        with pytest.raises(DeviceError, match="no lever"):
            Tuned(codebook="one-hop").check_device(weak, sites)  # too weak for waits

    def test_a_weak_lever_is_a_warning_that_names_the_value(self):
        weak = load_device("ibm_nairobi[zz=0.01,crosstalk=static-zz]")
        sites = device_placement(weak).sites
        reach = find_lever(weak, sites).reach
        assert 0 < reach < ENOUGH
        with pytest.warns(QnadWarning, match=rf"{reach:.3g} rad .*qnad devices list"):
            Tuned().check_device(weak, sites)
        with pytest.warns(QnadWarning, match="up to 3 units"):
            Tuned(max_pairs=3).check_device(weak, sites)

    def test_the_warning_is_shown_once(self):
        x, y = (tensor.numpy() for tensor in data(60))
        weak = "ibm_nairobi[zz=0.01,crosstalk=static-zz]"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            QNAD(plain(), weak, strategy="tuned", fraction=0.1, **FEW).fit(x, y)
        assert sum("weak lever" in str(warning.message) for warning in caught) == 1

    @pytest.mark.parametrize("model", ["static-zz", "echoed", "paper"])
    def test_a_good_lever_is_silent_and_so_is_the_model_of_the_paper(self, model):
        for factor in (1, 0) if model == "paper" else (1,):
            device = load_device(f"ibm_nairobi[zz={factor},crosstalk={model}]")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                Tuned().check_device(device, device_placement(device).sites)


def test_an_exception_leaves_the_module_as_it_is(monkeypatch):
    module = convert(network(), data()[0], device="ibm_nairobi", shots=64, seed=0).train()
    twin = copy.deepcopy(module)
    attack = AdversarialLoop._attack
    calls = []

    def fail_later(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 3:
            raise ArithmeticError
        return attack(self, *arguments, **options)

    monkeypatch.setattr(AdversarialLoop, "_attack", fail_later)
    with pytest.raises(ArithmeticError):
        Tuned(shot_noise=False, **FEW).plan(module, *data())
    assert module.shots == 64
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert torch.equal(module(data()[0]), twin(data()[0]))  # the shot noise too
    tried = calls[0].network
    assert tried.shots == 64
    assert all(layer.tuned is None for layer in tried.layers.values())


NETWORKS = {
    "grouped": nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ),
    "one-dimensional": nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ),
    "with batch norm": nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 3)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shots", [None, 64])
def test_kinds_of_layers_in_train_mode(name, shots):
    shape = (80, 2, 16) if name == "one-dimensional" else (80, 2, 4, 4)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1).mean(1) * 10).long() % 3
    settings = Tuned(**{**FEW, "epochs": 1, "batch_size": 16})
    module = convert(NETWORKS[name].train(), x, device="ibm_nairobi", shots=shots, seed=0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    plan = settings.plan(module, x, y)
    assert plan.injected
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    module.plan = plan
    assert settings.plan(module, x, y).injected  # from a module that has crosstalk already
    assert module.plan is plan


def test_layers_that_the_forward_pass_leaves_out(tmp_path):
    class WithAuxiliaryHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.head = nn.Flatten(), nn.Linear(64, 10)
            self.auxiliary = nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.flatten(x))

    x, y = data()
    with pytest.warns(QnadWarning, match="auxiliary"):
        module = convert(WithAuxiliaryHead(), x, device="ibm_nairobi")
    settings = Tuned(**FEW, checkpoint=tmp_path / "run")
    plan = settings.plan(module, x, y)
    assert plan.words(plan.layers["head"]).any()
    assert not plan.words(plan.layers["auxiliary"]).any()
    resumed = dataclasses.replace(settings, resume=True).plan(module, x, y)
    assert resumed.histogram() == plan.histogram()


@pytest.mark.slow
def test_tuning_defends_against_white_box_attacks_and_inherent_noise_does_not():
    train, test = images("digits", "train"), images("digits")
    classifier = plain()
    defence = QNAD(
        classifier, strategy="tuned", fraction=0.3, epsilon=0.15, epochs=15, learning_rate=0.02
    )
    defence.fit(train.x, train.y)
    hardened = defence(train.x, classifier)
    noisy = QuantumExecutedClassifier.from_art(classifier, train.x)

    def robust(victim) -> float:
        attack = ProjectedGradientDescent(
            victim, eps=0.15, eps_step=0.03, max_iter=10, verbose=False
        )
        return (victim.predict(attack.generate(test.x, test.y)).argmax(1) == test.y).mean()

    clean = (hardened.predict(test.x).argmax(1) == test.y).mean()
    assert clean > (classifier.predict(test.x).argmax(1) == test.y).mean() - 0.1
    assert robust(hardened) > robust(noisy) + 0.1
