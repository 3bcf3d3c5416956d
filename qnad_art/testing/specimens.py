"""Small things to try plugins on: networks, crosstalk, images; all seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from qnad_art.benchmark.victim import seeded
from qnad_art.crosstalk.plan import LayerPlan
from qnad_art.module import QuantumExecutedModule
from qnad_art.testing.suite import expect


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1), float32."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def built(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` with weights that depend on ``seed`` alone, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else len(parameter)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network.eval()


def install_random_crosstalk(module: QuantumExecutedModule, *, most: int, seed: int = 0) -> None:
    """Give every weight a random site and, where there is a neighbour, up to ``most`` pairs."""
    generator = torch.Generator().manual_seed(seed)
    sites = module.plan.sites
    injectable = torch.tensor([site.neighbour is not None for site in sites])
    layers = {}
    for name, shape in module.weight_shapes.items():
        site = torch.randint(len(sites), shape, generator=generator)
        pairs = torch.randint(-most, most + 1, shape, generator=generator)
        pairs = torch.where(injectable[site], pairs, 0)
        layers[name] = LayerPlan(site.to(torch.int16), pairs.to(torch.int8))
    module.plan = replace(module.plan, layers=layers)


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Context with the global generators at ``seed``; what is inside must not use them up."""
    with seeded(seed):
        before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
        yield
        after = torch.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
        used = [
            name
            for name, a, b in zip(("torch", "numpy"), before, after, strict=True)
            if not np.array_equal(np.asarray(a), np.asarray(b))
        ]
        expect(
            not used,
            found=f"that it draws from (or seeds) the global generator of {' and '.join(used)}",
            expected="generators of its own, seeded by its settings",
        )
