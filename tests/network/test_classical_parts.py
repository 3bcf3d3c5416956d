"""What stays classical is as torch has it, where it runs otherwise: pooling, gradients."""

import itertools

import pytest
import torch
from torch import nn

from qnad_art import convert


def ties(*shape):
    """Small whole numbers, many of them the same."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(-2, 3, shape, generator=generator).float()


POOLS = {
    "halves": {"kernel_size": 2},
    "by tuples": {"kernel_size": (2, 2), "stride": (2, 2)},
    "overlapping": {"kernel_size": 2, "stride": 1},
    "threes": {"kernel_size": 3},
    "padded": {"kernel_size": 2, "padding": 1},
    "dilated": {"kernel_size": 2, "dilation": 2},
    "rounded up": {"kernel_size": 2, "ceil_mode": True},
}


class TestPooling:
    @pytest.mark.parametrize("settings", POOLS.values(), ids=POOLS)
    @pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9)])
    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
    def test_is_torch_s(self, settings, size, kind):
        plain = nn.Sequential(nn.MaxPool2d(**settings), nn.Conv2d(3, 2, 1)).to(kind)
        pool = convert(plain).network[0]
        x = ties(4, 3, *size).to(kind)
        for values in (x, x[0], x.to(memory_format=torch.channels_last), x.transpose(-1, -2)):
            assert torch.equal(pool(values), plain[0](values))
        x[1, 1] = -torch.inf
        x[2, 2] = torch.nan
        torch.testing.assert_close(pool(x), plain[0](x), rtol=0, atol=0, equal_nan=True)

    def test_gradients_are_torch_s(self):
        plain = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1))
        pools = plain[0], convert(plain).network[0]
        x = ties(4, 3, 6, 8).requires_grad_()
        weights = torch.rand(4, 3, 3, 4)
        expected, found = (torch.autograd.grad((weights * p(x)).sum(), x)[0] for p in pools)
        assert torch.equal(found, expected)

    def test_indices_are_given(self):
        plain = nn.Sequential(nn.MaxPool2d(2, return_indices=True), nn.Conv2d(3, 2, 1))
        x = ties(4, 3, 6, 8)
        for found, expected in zip(convert(plain).network[0](x), plain[0](x), strict=True):
            assert torch.equal(found, expected)

    def test_is_still_a_pooling_of_the_same_name(self):
        plain = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1))
        assert type(plain[0]) is nn.MaxPool2d
        pool = convert(plain).network[0]
        assert isinstance(pool, nn.MaxPool2d)
        assert repr(pool) == repr(plain[0])


CONVOLUTIONS = {
    **{
        f"{inputs} to {outputs}, padding {padding}, dilation {dilation}": nn.Conv2d(
            inputs, outputs, (3, 5), padding=padding, dilation=dilation
        )
        for inputs, outputs, padding, dilation in itertools.product(
            (1, 3), (6, 9), (0, (1, 2), (2, 4), 3), (1, 2)
        )
    },
    "strided": nn.Conv2d(1, 4, 3, stride=2),
    "grouped": nn.Conv2d(4, 4, 3, groups=2),
    "reflected": nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
    "same": nn.Conv2d(1, 4, 3, padding="same"),
    "1d": nn.Conv1d(2, 4, 3, padding=1, dilation=2),
}


@pytest.mark.parametrize("trained", ["", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_convolutions_are_torch_s(name, trained):
    plain = CONVOLUTIONS[name].double()
    x = ties(*(2, plain.in_channels, 12, 13)[: plain.weight.dim()]).double()
    module = convert(plain, x, device="ideal")
    x.requires_grad_()
    found = []
    for function, layer in ((plain, plain), (module, module.network)):
        parameters = dict(layer.named_parameters())
        for key, parameter in parameters.items():
            parameter.requires_grad_(key in trained)
        of = [x, *(parameters[key] for key in trained.split())]
        found.append(torch.autograd.grad(function(x).square().sum(), of))
    torch.testing.assert_close(*found)
