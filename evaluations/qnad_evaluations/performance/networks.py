"""Networks to measure: untrained, with settled batch norm, plain and quantum-executed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qnad_art.models.architectures import architecture_of, build_model
from qnad_art.network.conversion import convert

NETWORKS = ("lenet5", "alexnet", "vgg16_bn", "resnet18")
VARIANTS: dict[str, int | None] = {"expectation": None, "shots": 1024}
"""Quantum execution: shots a product."""


def plain_network(model: str, batch: int) -> tuple[nn.Module, Tensor]:
    """An untrained network in eval mode, and images for it.

    Its weights are normally distributed and its batch norm statistics are those of the images, so
    that weights and activations are spread about as in a trained one.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(model)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    shape = architecture_of(network)
    size = (batch, shape.in_channels, shape.image_size, shape.image_size)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain average
    with torch.no_grad():
        network.train()(x if batch > 1 else torch.cat([x, 1 - x]))
    return network.eval(), x


def variants(model: str, batch: int, device: str) -> tuple[dict[str, nn.Module], Tensor]:
    """The plain network and both kinds of quantum execution, and images."""
    plain, x = plain_network(model, batch)
    noisy = {
        name: convert(plain, x, device=device, shots=shots, seed=0)
        for name, shots in VARIANTS.items()
    }
    return {"plain": plain, **noisy}, x
