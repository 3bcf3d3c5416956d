"""Small test objects for plugins: networks, crosstalk and images, all seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from qnad_art.benchmark.suites.sources import classifier_of
from qnad_art.benchmark.threats.victim import seeded
from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.plan import LayerPlan
from qnad_art.testing.checks import expect_unchanged


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Uniform random numbers in [0, 1), float32."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def built(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` in eval mode, with weights that depend only on ``seed``."""
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


@cache
def digits(split: Literal["train", "test"] = "test") -> Dataset:
    """The 8×8 digits that scikit-learn ships."""
    return load_dataset("digits", split)


@cache
def _readout_weights() -> tuple[Tensor, Tensor]:
    """Weight (10, features) and bias (10,) of :func:`digits_classifier`, by ridge regression."""
    data = digits("train")
    with torch.no_grad():
        features = _features()(torch.as_tensor(data.x)).double()
    rows = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    targets = torch.eye(10, dtype=torch.float64)[data.y] - 0.1
    penalty = 1e-2 * len(rows) * torch.eye(rows.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(rows.T @ rows + penalty, 10 * rows.T @ targets).T.float()
    return solution[:, :-1].contiguous(), solution[:, -1].contiguous()


def _features() -> nn.Module:
    return built(nn.Sequential(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()))


def digits_classifier() -> PyTorchClassifier:
    """Build an undefended classifier of digits with an accuracy of 95 %.

    It has random convolutions and a linear layer in closed form, so nothing is trained. Every
    call returns a separate object.
    """
    with seeded(0):  # torch initialises layers from its global generator
        features, readout = _features(), nn.Linear(256, 10)
    with torch.no_grad():
        for parameter, value in zip(readout.parameters(), _readout_weights(), strict=True):
            parameter.copy_(value)
    return classifier_of(nn.Sequential(features, readout).eval(), digits())


def accuracy(classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray) -> float:
    """Fraction of the images ``x`` (N, …) that are classified as ``y`` (N,)."""
    return float((classifier.predict(x).argmax(1) == y).mean())


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Context that seeds the global generators; code inside must not draw from them."""
    with seeded(seed):
        before = _generator_states()
        yield
        expect_unchanged(
            before,
            _generator_states(),
            by="a draw or a seed",
            expected="generators of its own, seeded by its settings",
        )


def _generator_states() -> dict[str, object]:
    numpy: Any = np.random.get_state()  # noqa: NPY002
    states = {"torch": torch.get_rng_state().clone(), "numpy": numpy[1].copy()}
    return {f"the global generator of {name}": state for name, state in states.items()}
