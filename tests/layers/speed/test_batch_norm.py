"""Batch norm folded into the convolution before it: nobody may see a difference, but for speed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint_sequential

from qnad_art import convert
from qnad_art.errors import InvalidInputError
from qnad_art.layers.linear_and_conv import QuantumConv2d
from qnad_art.layers.linear_map import linear_map_of


class Block(nn.Module):
    """A residual block; ``also`` says what else is done with the output of the convolution."""

    def __init__(self, also=None, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.also = also
        self.seen = None

    def forward(self, x):
        out = self.conv(x)
        normalised = functional.relu(self.norm(out), inplace=True)
        if self.also == "added":
            normalised = normalised + out
        elif self.also == "before":
            normalised = self.norm(out * 2)
        elif self.also == "concatenated":
            normalised = torch.cat([out, normalised], 1)
        elif self.also == "in place":
            out.mul_(2)
            normalised = self.norm(out)
        elif self.also == "kept":
            self.seen = out
        return normalised


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
    for layer in plain.layers.values():
        layer.postpone = None
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
    "block": (Block, (3, 8, 8)),
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


@pytest.mark.parametrize("shots", [None, 100])
@pytest.mark.parametrize("also", ["added", "before", "concatenated", "in place", "kept"])
def test_whoever_else_reads_the_output_sees_it_as_it_is(also, shots):
    """With the noise that is in the normalised outputs already."""
    network, x = settled(Block(also), (3, 8, 8))
    folding, plain = both(network, x, shots=shots)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context(), folding.frozen_draw(), plain.frozen_draw():
            for _ in range(2):  # once it is known, too
                torch.testing.assert_close(folding(x), plain(x))
            if also == "kept":  # and looked at later
                torch.testing.assert_close(folding.network.seen * 1, plain.network.seen)
                assert folding.network.seen.shape == plain.network.seen.shape


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
    assert len(calls) == (name != "block" and nothing)


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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv2d(2, 3, 3, padding="valid", stride=3),
        nn.Conv1d(2, 3, 4, padding=3, stride=3),
    ],
)
def test_the_shape_is_known_before(layer):
    x = torch.rand(2, 2, *(11, 10)[: layer.weight.dim() - 2])
    assert linear_map_of(layer).output_shape(x) == layer(x).shape[1:]


class Twice(nn.Module):
    """One convolution, two batch norms that are the same, and their difference."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)

    def forward(self, x):
        out = self.conv(x)
        return self.norm(out) - self.other(out)


class Early(nn.Module):
    """A network that returns what a convolution gave, though a batch norm is next in its list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.conv(x)


class InputChanged(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.first(x)
        out = self.conv(x)
        x.relu_()
        return self.norm(out)


def test_two_batch_norms_see_one_draw():
    network, x = settled(Twice(), (3, 6, 6))
    network.other.load_state_dict(network.norm.state_dict())
    module = convert(network, x, shots=64, seed=0)
    with torch.no_grad():
        assert float(module(x).abs().max()) < 1e-5


def test_an_output_that_leaves_the_network_is_computed_within_the_pass():
    network, x = settled(Early(), (3, 6, 6))
    module = convert(network, x, shots=64, seed=0)
    with torch.no_grad(), module.frozen_draw():
        first, second = module(x), module(x)
    assert type(first) is torch.Tensor
    assert first.numpy().shape == (6, 4, 4, 4)
    assert torch.equal(first, second)


def test_an_input_changed_in_place_is_noticed():
    network, x = settled(InputChanged(), (3, 8, 8))
    module = convert(network, x, device="ideal")
    with torch.no_grad():
        with pytest.raises(InvalidInputError, match=r"changed in place.*Run the pass again"):
            module(x)
        torch.testing.assert_close(module(x), network(x), rtol=1e-4, atol=1e-4)
