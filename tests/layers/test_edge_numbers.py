"""Numbers and networks at the edge, through the public interface: right, or refused with a reason.

The oracle is the plain network in float64: on the noiseless device outputs and gradients are its
own up to the rounding of the type, and with shots they spread around the exact expectation.
"""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from qnad_art import QuantumExecutedClassifier, convert
from qnad_art.errors import InvalidInputError, QnadWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make().eval()


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def small(classes: int = 3, channels: int = 2, size: int = 4) -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, 4, 1 if size == 1 else 3, padding=0 if size == 1 else 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * size * size, classes),
        )

    return seeded(make)


def scaled(factor: float, layer: int = 0) -> nn.Module:
    network = small()
    with torch.no_grad():
        for parameter in network[layer].parameters():
            parameter.mul_(factor)
    return network


def frozen() -> nn.Module:
    network = small()
    network[0].requires_grad_(False)
    return network


def shared() -> nn.Module:
    layer = nn.Linear(32, 32)
    return seeded(lambda: nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Linear(32, 3)))


def tied() -> nn.Module:
    network = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
    )
    network[3].weight = network[1].weight
    return network


def one_channel_dark() -> Tensor:
    x = uniform(6, 2, 4, 4)
    x[:, 1] = 0
    return x


@dataclass(frozen=True)
class Case:
    network: nn.Module = field(default_factory=small)
    x: Tensor = field(default_factory=lambda: uniform(6, 2, 4, 4))
    classes: int = 3
    rounding: float = 1e-5
    dtype: torch.dtype = torch.float32
    silent: bool = False
    """Too small for its noise to show."""


CASES: dict[str, Callable[[], Case]] = {
    "zero weights": lambda: Case(scaled(0.0, 3), silent=True),
    "weights that zero the rest": lambda: Case(scaled(0.0), silent=True),
    "weights 1e-30": lambda: Case(scaled(1e-30), silent=True),
    "weights 1e30": lambda: Case(scaled(1e30)),
    "last weights 1e-30": lambda: Case(scaled(1e-30, 3)),
    "one class": lambda: Case(small(1), classes=1),
    "two classes": lambda: Case(small(2), classes=2),
    "10,000 classes": lambda: Case(small(10_000), classes=10_000),
    "a batch of one": lambda: Case(x=uniform(1, 2, 4, 4)),
    "an empty batch": lambda: Case(x=uniform(0, 2, 4, 4)),
    "a constant channel": lambda: Case(x=one_channel_dark()),
    "constant images": lambda: Case(x=torch.full((6, 2, 4, 4), 0.5)),
    "images of 1×1": lambda: Case(small(size=1), uniform(6, 2, 1, 1)),
    "channels-last": lambda: Case(
        small().to(memory_format=torch.channels_last),
        uniform(6, 2, 4, 4).to(memory_format=torch.channels_last),
    ),
    "strided input": lambda: Case(x=uniform(12, 4, 4, 2).permute(0, 3, 1, 2)[::2]),
    "expanded input": lambda: Case(x=uniform(1, 2, 4, 4).expand(6, -1, -1, -1)),
    "float16": lambda: Case(small().half(), rounding=3e-3, dtype=torch.float16),
    "bfloat16": lambda: Case(small().bfloat16(), rounding=3e-2, dtype=torch.bfloat16),
    "float64": lambda: Case(small().double(), rounding=1e-12, dtype=torch.float64),
    "a frozen layer": lambda: Case(frozen()),
    "a shared layer": lambda: Case(shared()),
    "tied weights": lambda: Case(tied(), classes=32),
    "DataParallel": lambda: Case(nn.DataParallel(small())),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]()


def calibration(case: Case) -> Tensor:
    """The images themselves and more, so that nothing saturates."""
    shape = case.x.shape[1:]
    return torch.cat([case.x, uniform(20, *shape, seed=1), torch.ones(1, *shape)])


def close(found: Any, expected: Tensor, rounding: float) -> None:
    found = torch.as_tensor(found).double()
    assert found.shape == expected.shape
    bound = rounding * max(float(expected.abs().max()), 1e-37) if expected.numel() else 0
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)


def exact(case: Case) -> nn.Module:
    return copy.deepcopy(case.network).double()


def test_without_noise_it_is_the_plain_network(case):
    module = convert(case.network, calibration(case), device="ideal")
    inputs = case.x.to(case.dtype)
    with torch.no_grad():
        expected = exact(case)(inputs.double())
        found = module(inputs)
        assert found.dtype == case.dtype
        close(found, expected, case.rounding)
        assert module(case.x).dtype == torch.float32  # in and out, as ART's always are
        close(module(case.x), expected, max(2 * case.rounding, 1e-6))


def art_classifier(case: Case, **settings: Any) -> QuantumExecutedClassifier:
    shape, loss = tuple(case.x.shape[1:]), nn.CrossEntropyLoss()
    plain = PyTorchClassifier(case.network, loss, shape, case.classes, device_type="cpu")
    return QuantumExecutedClassifier.from_art(plain, calibration(case).numpy(), **settings)


@pytest.mark.parametrize("name", [name for name in CASES if name != "one class"])
def test_through_art_outputs_and_gradients_are_the_plain_networks(name):
    case = CASES[name]()
    classifier, x = art_classifier(case, device="ideal"), case.x.numpy()
    labels = np.arange(len(x)) % case.classes
    tracked = case.x.double().requires_grad_()
    logits = exact(case)(tracked)
    nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    found, gradient = classifier.predict(x), classifier.loss_gradient(x, labels)
    assert found.dtype == gradient.dtype == np.float32
    close(found, logits.detach(), max(2 * case.rounding, 1e-6))
    close(gradient, tracked.grad, max(20 * case.rounding, 1e-6))


def test_one_class_is_for_the_bare_module_art_wants_two():
    with pytest.raises(ValueError, match="nb_classes must be greater"):
        art_classifier(CASES["one class"]())


def test_with_shots_draws_spread_around_the_expectation(case):
    if case.classes > 100 or not len(case.x):
        case = Case(case.network, uniform(1, 2, 4, 4), case.classes, case.rounding, case.dtype)
    module = convert(case.network, calibration(case), shots=64, seed=0, percentile=100.0)
    draws = 400
    images = case.x[:1].expand(draws, *case.x.shape[1:])
    with torch.no_grad():
        sample = module(images).double()
        module.shots = None
        mean = module(images[:1]).double()
    assert torch.isfinite(sample).all()
    error = (sample.mean(0) - mean).abs()
    allowed = 6 * sample.std(0) / draws**0.5 + 4 * case.rounding * mean.abs().max()
    assert (error <= allowed).all()
    assert (sample.std(0).max() == 0) == case.silent


def test_weights_of_frozen_layers_stay_and_the_others_learn():
    case = CASES["a frozen layer"]()
    classifier = art_classifier(case, shots=256, seed=0)
    optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.1)
    classifier.set_params(optimizer=optimizer)
    before = copy.deepcopy(classifier.model.state_dict())
    classifier.fit(case.x.numpy(), np.arange(6) % 3, nb_epochs=1)
    changed = {
        name: not torch.equal(before[name], value)
        for name, value in classifier.model.state_dict().items()
    }
    assert changed == {name: ".3." in name for name in before}


def test_shared_and_tied_weights_stay_so():
    network = convert(tied(), uniform(6, 2, 4, 4)).network
    assert network[3].weight is network[1].weight
    network = convert(shared(), uniform(6, 2, 4, 4)).network
    assert network[3] is network[1]


def test_labels_of_many_classes_cost_no_square_of_them():
    case = CASES["10,000 classes"]()
    classifier = art_classifier(case)
    tracemalloc.start()
    classifier.loss_gradient(case.x.numpy(), np.array([0, 1, 9_999, 5, 7, 9]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # a square would be 400e6


# Refused, with a reason


def broken(value: float) -> nn.Module:
    network = small()
    with torch.no_grad():
        network[3].weight[1, 2] = value
    return network


def too_large() -> nn.Module:
    network = scaled(1e30)
    with torch.no_grad():
        network[3].weight.mul_(1e30)
    return network


def half_too_large() -> nn.Module:
    network = scaled(1e4)
    with torch.no_grad():
        network[3].weight.mul_(1e4)
    return network.half()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "NaN weights": (lambda: broken(float("nan")), "'3' has NaN"),
    "infinite weights": (lambda: broken(float("-inf")), "'3' has NaN or infinite"),
    "weights 1e30 twice": (too_large, r"overflows torch\.float32"),
    "float16 weights 1e4 twice": (half_too_large, r"overflows torch\.float16"),
    "traced network": (lambda: torch.jit.trace(small(), uniform(1, 2, 4, 4)), "TorchScript"),
    "scripted network": (lambda: torch.jit.script(small()), "TorchScript"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_run_are_refused_with_the_reason(name):
    make, reason = REFUSED[name]
    with pytest.raises(InvalidInputError, match=reason):
        convert(make(), uniform(6, 2, 4, 4))


def test_dark_calibration_images_are_warned_of():
    with pytest.warns(QnadWarning, match="'0'"):
        convert(small(), torch.zeros(6, 2, 4, 4))


# Traced, compiled, parallel


def test_a_trace_is_the_expectation_for_other_batches_and_trained_weights():
    module, x = convert(small(), uniform(20, 2, 4, 4)), uniform(6, 2, 4, 4, seed=2)
    traced = torch.jit.trace(module, x)  # with its own check, which runs the module again
    with torch.no_grad():
        module.network[3].weight.mul_(0.5)
    for images in (x, x[:1]):
        torch.testing.assert_close(traced(images), module(images))
    tracked = [x.clone().requires_grad_() for _ in range(2)]
    for run, images in zip((traced, module), tracked, strict=True):
        run(images).square().sum().backward()
    torch.testing.assert_close(tracked[0].grad, tracked[1].grad)


def test_shot_noise_is_not_traced():
    module = convert(small(), uniform(20, 2, 4, 4), shots=100)
    for check in (True, False):
        with pytest.raises(InvalidInputError, match=r"shots=None, or use torch\.compile"):
            torch.jit.trace(module, uniform(6, 2, 4, 4), check_trace=check)


@pytest.mark.parametrize("shots", [None, 100])
def test_data_parallel_around_a_noisy_network_is_that_network(shots):
    module, x = convert(small(), uniform(20, 2, 4, 4), shots=shots, seed=0), uniform(6, 2, 4, 4)
    parallel = nn.DataParallel(module)
    with module.frozen_draw():
        assert torch.equal(parallel(x), module(x))
    classifier = QuantumExecutedClassifier(
        parallel, nn.CrossEntropyLoss(), (2, 4, 4), 3, device_type="cpu"
    )
    assert classifier.shots == shots
    with classifier.frozen_draw(), torch.no_grad():
        assert np.array_equal(classifier.predict(x.numpy()), module(x).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("shots", [None, 100])
def test_a_compiled_noisy_network_draws_and_differentiates_as_it_does(shots):
    torch._dynamo.reset()
    network = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    module, x = convert(network, uniform(20, 2, 4, 4), shots=shots, seed=0), uniform(6, 2, 4, 4)
    compiled = torch.compile(module, backend="aot_eager")
    results = []
    for run in (module, compiled):
        module.noise.reseed(1)
        images = x.clone().requires_grad_()
        logits = run(images), run(images)
        (logits[0] * logits[1]).sum().backward()
        results.append((*logits, images.grad))
    for found, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(results[1][0], results[1][1]) == (shots is None)


@pytest.mark.slow
def test_a_compiled_network_can_be_converted():
    torch._dynamo.reset()
    network = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    x = uniform(6, 2, 4, 4)
    compiled = torch.compile(network, backend="eager")
    expected = compiled(x)
    module = convert(compiled, x, device="ideal")
    assert len(module.layers) == 1
    torch.testing.assert_close(module(x), expected)
    noisy = convert(compiled, x, readout="raw", gain="raw")
    torch.testing.assert_close(noisy(x), convert(network, x, readout="raw", gain="raw")(x))
    assert (noisy(x) - expected).abs().max() > 1e-3
