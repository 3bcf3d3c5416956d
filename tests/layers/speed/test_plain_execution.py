"""Without what only makes it faster, a network computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from qnad_art import convert
from qnad_art.layers.noise_source import OUTPUT_PIECE
from qnad_art.layers.speed import variance


class Block(nn.Module):
    """A residual block as in ResNet-18, whose convolutions wait for their batch norms."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def resnet():
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )


def batch_norm():
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(2), nn.Conv1d(8, 4, 3, groups=2), nn.BatchNorm1d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * 194, 10)),
    )


def wide():
    """Wide enough for the cheaper forms of the variance."""
    return nn.Sequential(
        *(nn.Conv2d(1, 200, 5, stride=4), nn.ReLU(), nn.Conv2d(200, 64, 2), nn.ReLU()),
        *(nn.Conv2d(64, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


NETWORKS = {"LeNet-5": lenet, "ResNet": resnet, "batch norm": batch_norm, "wide": wide}
EXECUTIONS = {
    "expectation": {},
    "shots": {"shots": 100},
    "biases as products": {"shots": 100, "bias": "quantum", "gain": "raw", "readout": "raw"},
}


@pytest.fixture(params=NETWORKS)
def network(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[request.param]().double()
        with torch.no_grad():
            for _ in range(5):  # batch norms that have seen something
                network(torch.rand(8, 1, 28, 28, dtype=torch.float64))
    return network.eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(40, 1, 28, 28, generator=generator, dtype=torch.float64)


def outputs_and_gradients(module, images, *, trained):
    """Outputs without and with gradients, and those of the images and the weights."""
    with torch.no_grad():
        found = [module(images)]
    weights = list(module.requires_grad_(trained).parameters()) if trained else []
    images = images[:8].clone().requires_grad_()
    found.append(module(images))
    found += torch.autograd.grad(found[1].square().sum(), [images, *weights])
    return found


@pytest.fixture
def exact_variance(monkeypatch):
    """Take no form of the variance that is only nearly right."""
    monkeypatch.setattr(variance, "NEGLIGIBLE", 0.0)
    monkeypatch.setattr(variance, "TOLERANCE", 0.0)


@pytest.mark.usefixtures("exact_variance")
@pytest.mark.parametrize("trained", [False, True], ids=["weights fixed", "weights trained"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_results_and_gradients_are_the_same(network, images, execution, trained, random_crosstalk):
    module = random_crosstalk(convert(network, images, seed=0, **EXECUTIONS[execution]))
    assert OUTPUT_PIECE < 40 * 6 * 28 * 28  # LeNet-5's first layer is worked on in pieces
    with module.frozen_draw():
        fast = outputs_and_gradients(module, images, trained=trained)
        with module.plain_execution():
            plain = outputs_and_gradients(module, images, trained=trained)
        again = outputs_and_gradients(module, images, trained=trained)
    for one, other, once_more in zip(fast, plain, again, strict=True):
        assert (one - other).norm() <= 1e-9 * other.norm()
        assert torch.equal(one, once_more)


@pytest.mark.parametrize("execution", ["shots", "biases as products"])
def test_the_noise_is_the_same_draw_to_half_a_percent(network, images, execution):
    module = convert(network, images, seed=0, **EXECUTIONS[execution])
    with torch.no_grad(), module.frozen_draw():
        fast = module(images)
        with module.plain_execution():
            plain = module(images)
        module.shots = None
        noise = plain - module(images)
    assert 0 < (fast - plain).norm() <= 5e-3 * noise.norm()


def test_in_tuning_gradients_are_the_same(network, images):
    module = convert(network, images, seed=0)
    found = []
    for context in (torch.enable_grad, module.plain_execution):
        with context(), module.frozen_draw():
            wanted = []
            for layer in module.layers.values():
                wanted.append(torch.zeros(layer.product_shape).double().requires_grad_())
                layer.tune(wanted[-1])
            loss = module(images).square().sum()
            found.append([loss.detach(), *torch.autograd.grad(loss, wanted)])
            for layer in module.layers.values():
                layer.tune(None)
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-9 * other.norm()


def test_plain_execution_uses_nothing_that_is_faster(network, images, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("faster, where it was to be plain")

    module = convert(network, images, seed=0, shots=100)
    for name in ("layer.FastSums", "batch_norm.normalised", "kernel_cache.KernelCache.get"):
        monkeypatch.setattr(f"qnad_art.layers.speed.{name}", refuse)
    monkeypatch.setattr(torch, "maximum", refuse)  # of the faster pooling
    with torch.no_grad():
        with module.plain_execution():
            assert module(images).isfinite().all()
        with pytest.raises(AssertionError, match="faster"):
            module(images)


def test_what_changes_meanwhile_counts_afterwards(network, images):
    module = convert(network, images, seed=0)
    with torch.no_grad():
        before = module(images)
        with module.plain_execution():
            next(module.parameters()).mul_(torch.tensor(-0.5))
            plain = module(images)
        torch.testing.assert_close(module(images), plain, rtol=1e-9, atol=1e-9)
    assert not torch.equal(before, plain)
