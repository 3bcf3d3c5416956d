"""Batch norm folded into the convolution before it: nobody may see a difference, but for speed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

from qnad_art import convert
from qnad_art.layers.linear_and_conv import QuantumConv2d


def settled(network, shape, seed=0):
    """``network`` with batch norms that have seen something, in eval mode, and images."""
    generator = torch.Generator().manual_seed(seed)
    kind = next(network.parameters()).dtype
    x = torch.rand((6, *shape), generator=generator, dtype=kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(5):
            network.train()(x)
    return network.eval(), x


def both(network, x, **settings):
    """The converted network, and one in which nothing is folded."""
    folding = convert(network, x, seed=3, **settings)
    plain = copy.deepcopy(folding)
    plain.network.__class__ = type(network)
    return folding, plain


def folds(monkeypatch):
    """A list that grows with every output that is computed normalised."""
    calls, before = [], QuantumConv2d.compiled

    def counted(self, x, kernels=None):
        calls.extend([self] * (kernels is not None))
        return before(self, x, kernels)

    monkeypatch.setattr("qnad_art.layers.quantum_layer.QuantumLayer.compiled", counted)
    return calls


NETWORKS = {
    "2d": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3, 2)
        ),
        (3, 9, 8),
    ),
    "1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 5, 3, padding="same"), nn.BatchNorm1d(5, affine=False), nn.ReLU()
        ),
        (3, 9),
    ),
    "no bias, groups": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
            nn.BatchNorm2d(6, eps=0.1),
        ),
        (4, 9, 8),
    ),
    "reflected": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(5)
        ),
        (3, 9, 8),
    ),
}
EXECUTIONS = {
    "expectation": {},
    "shots": {"shots": 100},
    "bias as products": {"shots": 100, "bias": "quantum"},
    "raw": {"gain": "raw", "readout": "raw", "shots": 50},
}


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_those_of_convolution_and_batch_norm(name, execution, monkeypatch):
    make, shape = NETWORKS[name]
    network, x = settled(make().double(), shape)
    folding, plain = both(network, x, **EXECUTIONS[execution])
    calls = folds(monkeypatch)
    with torch.no_grad(), folding.frozen_draw(), plain.frozen_draw():
        for images in (x, x[:1], x[:2, ..., 1:].contiguous()):
            torch.testing.assert_close(folding(images), plain(images))
    assert len(calls) == 3


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("trained", ["all", "norm", "bias", None])
def test_gradients_are_those_of_convolution_and_batch_norm(name, trained, monkeypatch):
    make, shape = NETWORKS[name]
    network, x = settled(make().double(), shape)
    pair = both(network, x, shots=100)
    calls, found = folds(monkeypatch), []
    for module in pair:
        for key, parameter in module.named_parameters():
            norm, bias = ".1." in key or "norm" in key, key.endswith("bias")
            kinds = {"all": True, "norm": norm, "bias": bias and not norm, None: False}
            parameter.requires_grad_(kinds[trained])
        images = x.clone().requires_grad_()
        with module.frozen_draw():
            module(images).square().sum().backward()
        found.append([images.grad, *(p.grad for p in module.parameters())])
    for folded, expected in zip(*found, strict=True):
        torch.testing.assert_close(folded, expected)
    nothing = not any(p.requires_grad for p in module.parameters())
    assert len(calls) == nothing


def test_gradients_reach_what_is_read_from_within_a_sequence():
    """As by code that goes over the parts of a network for its features."""
    make, shape = NETWORKS["2d"]
    network, x = settled(make(), shape)
    gradients = []
    for module in both(network, x):
        module.requires_grad_(False)
        network, values, images = module.network, [], x.clone().requires_grad_()
        with module.noise.forward_pass():
            value = images
            for part in network:
                value = part(value)
                values.append(value)
        sum(value.square().mean() for value in values).backward()
        gradients.append(images.grad)
        with module.noise.forward_pass():
            images = x.clone().requires_grad_()
            checkpoint_sequential(network, 4, images, use_reentrant=True).sum().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[3])
    assert gradients[1].abs().max() > 0


def test_what_batch_norm_has_learnt_since_counts():
    network, x = settled(NETWORKS["2d"][0](), (3, 9, 8))
    folding, plain = both(network, x)
    with torch.no_grad():
        before = folding(x)
        for module in (folding, plain):
            module.network[1].weight.mul_(2)
            module.network[1].running_mean.add_(1)
            module.network[0].weight.mul_(0.5)
        after = folding(x)
        torch.testing.assert_close(after, plain(x))
        assert not torch.equal(before, after)
        for module in (folding, plain):
            module.network[1] = nn.BatchNorm2d(5).eval()  # a plain one
        torch.testing.assert_close(folding(x), plain(x))


def test_in_training_the_batch_counts(monkeypatch):
    network, x = settled(NETWORKS["2d"][0](), (3, 9, 8))
    folding, plain = both(network, x)
    calls = folds(monkeypatch)
    torch.testing.assert_close(folding.train()(x), plain.train()(x))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(folding.state_dict()[name], value)
    assert not calls


def test_hooks_and_direct_calls_see_the_layer_s_own_output(monkeypatch):
    network, x = settled(NETWORKS["2d"][0](), (3, 9, 8))
    folding, plain = both(network, x)
    calls, seen = folds(monkeypatch), []
    with torch.no_grad():
        for module in (folding, plain):
            hook = module.network[0].register_forward_hook(lambda *a: seen.append(a[2]))
            seen.append(module(x))
            hook.remove()
            seen.append(module.network[0](x))
        assert not calls
        assert type(seen[0]) is torch.Tensor
        for own, expected in zip(seen[:3], seen[3:], strict=True):
            torch.testing.assert_close(own, expected)
        folding(x)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_types(kind):
    network, x = settled(NETWORKS["2d"][0](), (3, 9, 8))
    pair = [module.to(kind) for module in both(network, x, shots=1000)]
    with torch.no_grad():
        folded, expected = (module(x.to(kind)) for module in pair)
    assert folded.dtype == kind
    torch.testing.assert_close(folded, expected, rtol=3e-2, atol=3e-2)


def test_copies_keep_nothing():
    network, x = settled(NETWORKS["2d"][0](), (3, 9, 8))
    module = convert(network, x)
    before = len(pickle.dumps(module))
    with torch.no_grad():
        expected = module(x)
        other = copy.deepcopy(module)
        assert torch.equal(other(x), expected)
    assert len(pickle.dumps(module)) == before
