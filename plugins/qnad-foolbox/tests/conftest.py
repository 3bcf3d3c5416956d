"""A small network on digits: plain, as circuits in expectation, and as circuits with shots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_art.estimator import QuantumExecutedClassifier


class Net(nn.Module):
    """Two layers; no ``nn.Sequential``, which ART would take apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(x)
        return logits


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", "test").take(200)


@pytest.fixture(scope="session")
def network() -> Net:
    data = load_dataset("digits", "train")
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def classifier_of(module: nn.Module, **more: Any) -> PyTorchClassifier:
    settings = {"clip_values": (0.0, 1.0), "device_type": "cpu", **more}
    return PyTorchClassifier(module, nn.CrossEntropyLoss(), (1, 8, 8), 10, **settings)


@pytest.fixture(scope="session")
def plain(network: Net) -> PyTorchClassifier:
    return classifier_of(network)


def as_circuits(plain: PyTorchClassifier, shots: int | None) -> QuantumExecutedClassifier:
    images: np.ndarray = load_dataset("digits", "train").x
    return QuantumExecutedClassifier.from_art(plain, images, shots=shots, seed=0)


@pytest.fixture(scope="session")
def expectation(plain: PyTorchClassifier) -> QuantumExecutedClassifier:
    return as_circuits(plain, None)


@pytest.fixture
def noisy(plain: PyTorchClassifier) -> QuantumExecutedClassifier:
    return as_circuits(plain, 256)
