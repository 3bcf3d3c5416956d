"""Strategy ``paper``: Algorithm 1 against a transcription of it, weight by weight."""

import time
from collections import defaultdict

import pytest
import torch
from art_fixtures import images, plain
from torch import nn
from torch.nn import functional

from qnad_art import QNAD
from qnad_art.benchmark.defences import build_steps
from qnad_art.crosstalk import build_strategy
from qnad_art.crosstalk.paper import Paper
from qnad_art.engines.verify_steps import verify_steps
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.network.conversion import convert
from qnad_art.placement.time_steps import steps_an_output, time_steps
from qnad_art.testing import check_strategy

IN_TIME = ["ibm_nairobi", "ibm_nairobi[crosstalk=static-zz]"]
DEVICES = ["ibm_nairobi[crosstalk=paper]", "ibm_mumbai[crosstalk=paper]", *IN_TIME]
PAIRS = 2


@pytest.fixture
def problem(random_tensor):
    """Function: a converted network whose sums end in the middle of a time step, inputs, labels."""

    def make(device, **settings):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 5)
            )
        x = random_tensor(6, 1, 7, 7)
        module = convert(net.double(), x, device=device, max_pairs=PAIRS, seed=0, **settings)
        return module, x, torch.arange(6) % 5

    return make


def algorithm_1(module, x, y, fraction):
    """Qubits that serve each weight, by (layer, output, number in the sum); () for none."""
    device, compute = module.device_profile, module.placement.compute
    layers, coupled = module.layers, device.neighbours
    loss = functional.cross_entropy(module.eval()(x), y)
    gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
    weights = [  # line 1
        (abs(float(value)), layer, output, j)
        for layer, gradient in zip(layers, gradients, strict=True)
        for output, row in enumerate(gradient.flatten(1))
        for j, value in enumerate(row)
    ]
    fan_in = {name: layer.weight[0].numel() for name, layer in layers.items()}
    critical = sorted(weights, reverse=True)[: round(fraction * len(weights))]

    served, words = {}, defaultdict(list)  # words by time step: target and those that serve it
    for _, layer, output, j in critical:
        step, target = j // len(compute), compute[j % len(compute)]  # line 2
        beginning = step * len(compute)
        running = compute[: fan_in[layer] - beginning]
        others = words[layer, output, step]
        two_hops = [(n, far) for n in coupled[target] for far in coupled[n] if far != target]
        served[layer, output, j] = ()
        for helpers in [*((n,) for n in coupled[target]), *two_hops]:  # line 3
            busy = {*running, *(q for _, serving in others for q in serving)}
            if busy & set(helpers):
                continue
            if device.crosstalk_model != "paper" and disturbs(
                coupled, (target, helpers), others, running
            ):
                continue
            others.append((target, helpers))  # line 5
            served[layer, output, j] = helpers
            break
    return served


def reach(coupled, word):
    target, helpers = word
    return {q for helper in helpers for q in coupled[helper]} - {target, *helpers}


def disturbs(coupled, word, others, running):
    """Whether a word and those of its step disturb each other, or one product together."""
    target, helpers = word
    for other in others:
        if reach(coupled, other) & {target, *helpers}:
            return True
        if reach(coupled, word) & {other[0], *other[1]}:
            return True
        if reach(coupled, word) & reach(coupled, other) & set(running):
            return True
    return False


@pytest.mark.parametrize(
    ("device", "compute"),
    # The last has words that disturb qubits of no site.
    [*((device, None) for device in DEVICES), ("ibm_nairobi[crosstalk=echoed]", (0, 2))],
)
@pytest.mark.parametrize("fraction", [0.05, 0.3, 1.0])
def test_is_algorithm_1_weight_by_weight(problem, device, compute, fraction):
    module, x, y = problem(device, compute=compute)
    plan = Paper(fraction, PAIRS).plan(module, x, y)
    expected = algorithm_1(module, x, y, fraction)
    found = {}
    compute = module.placement.compute
    for name, layer in plan.layers.items():
        for output, (sites, counts) in enumerate(
            zip(layer.site.flatten(1).tolist(), layer.pairs.flatten(1).tolist(), strict=True)
        ):
            for j, (index, count) in enumerate(zip(sites, counts, strict=True)):
                site = plan.sites[index]
                assert site.qubit == compute[j % len(compute)]
                if count and site.next_to is None:
                    assert count == PAIRS
                    found[name, output, j] = site.qubits[1:]
    assert found == {place: helpers for place, helpers in expected.items() if helpers}
    assert found
    assert plan.injected == len(found)
    assert plan.unserved == len(expected) - len(found)
    assert plan.unserved or fraction < 1.0


@pytest.mark.parametrize("device", DEVICES)
def test_no_time_step_is_added_and_the_order_is_plain(problem, device):
    module, x, y = problem(device)
    plan, width = Paper(0.4).plan(module, x, y), len(module.placement.compute)
    for layer in plan.layers.values():
        step = time_steps(module.placement, layer.site, layer.pairs).flatten(1)
        fan_in = step.shape[1]
        assert (step == torch.arange(fan_in) // width).all()
        nothing = steps_an_output(module.placement, layer.site, 0 * layer.pairs)
        assert torch.equal(step.amax(1) + 1, nothing)


def test_whole_steps_of_its_plan_come_out_as_compiled_on_aer(problem, nairobi):
    module, x, y = problem(nairobi)
    plan = Paper(0.4, PAIRS).plan(module, x, y)
    found = verify_steps(nairobi, plan=plan, steps=6, max_pairs=PAIRS, tolerance=1e-9)
    assert found.passed
    assert found.injected
    assert found.met


@pytest.mark.parametrize("device", ["ibm_nairobi", "ibm_nairobi[crosstalk=paper]"])
def test_the_settings_order_changes_nothing(problem, device):
    plans = []
    for order in ("stretched", "aware", "plain"):
        module, x, y = problem(device, order=order)
        plans.append(Paper(0.3).plan(module, x, y))
    for plan in plans[1:]:
        for name, layer in plan.layers.items():
            assert torch.equal(layer.site, plans[0].layers[name].site)
            assert torch.equal(layer.pairs, plans[0].layers[name].pairs)


@pytest.mark.parametrize("device", ["ibm_nairobi", "ibm_nairobi[crosstalk=paper]"])
def test_the_more_critical_of_two_gets_the_neighbour(random_tensor, device):
    """Qubits 0 and 2 have only qubit 1 between them: the larger gradient decides, not the order."""
    plain = nn.Linear(2, 2, bias=False).double()
    x = random_tensor(4, 2) * torch.tensor([0.1, 1.0])
    module = convert(plain, x, device=device, compute=(0, 2), max_pairs=1)
    plan = Paper(1.0).plan(module, x, torch.tensor([0, 1, 1, 0]))
    assert plan.words(plan.layers[""]).tolist() == [[False, True], [False, True]]
    assert plan.unserved == 2


@pytest.mark.slow
@pytest.mark.parametrize("device", ["ibm_nairobi[crosstalk=paper]", "ibm_nairobi"])
def test_fifteen_million_weights_take_seconds(problem, monkeypatch, device):
    module, x, y = problem(device)
    gradients = {"": torch.rand((3260, 4608), generator=torch.Generator().manual_seed(0))}
    monkeypatch.setattr("qnad_art.crosstalk.paper.weight_gradients", lambda *_: gradients)
    monkeypatch.setattr("qnad_art.placement.plan.settled", lambda _, *layer: layer)
    start = time.perf_counter()
    plan = Paper(0.3).plan(module, x, y)
    assert time.perf_counter() - start < 30
    assert plan.weights > 15e6
    assert plan.injected


@pytest.mark.slow
@pytest.mark.parametrize("device", IN_TIME)
def test_conforms_under_the_models_in_time_too(device):
    check_strategy("paper", device=device)


def test_defence_and_suite_know_it_by_name():
    defence = QNAD(plain(), strategy="paper", fraction=0.2, pairs=1, seed=0)
    defence.fit(images("digits", "train").x[:60], images("digits", "train").y[:60])
    assert defence.plan.strategy == "paper"
    (step,) = build_steps({"name": "qnad", "strategy": "paper", "fraction": 0.2})
    assert step.content().items() >= {"name": "qnad-paper", "fraction": 0.2, "pairs": 1}.items()
    with pytest.raises(UnknownNameError, match="polarity"):
        build_steps({"name": "qnad", "strategy": "paper", "polarity": "fixed"})


@pytest.mark.parametrize("pairs", [0, -1, 128, 1.5, True])
def test_bad_pair_counts_are_refused(pairs):
    with pytest.raises(InvalidInputError, match="1 to 127"):
        build_strategy("paper", pairs=pairs)
