"""Small victims of the benchmark's tests: trained in a second, with and without noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import art.attacks.evasion as evasion
import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.benchmark.protocol import Protocol
from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.training.adversarial import perturb

QUICK = Protocol(
    draws=4,
    selection_draws=4,
    eot_samples=(1, 4, 8),
    query_averages=(1, 3),
    persistent_draws=12,
    seed_known_draws=2,
    batch_size=64,
    resamples=200,
    audit_steps=8,
)


class Net(nn.Module):
    """Two layers; no ``nn.Sequential``, which ART would take apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Noisy(nn.Module):
    """Noise on the input, as the benchmark's noisy defences have it."""

    def __init__(self, module: nn.Module, scale: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        self.module, self.scale, self.noisy = module, scale, True
        self.noise = NoiseSource(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.noise.forward_pass():
            return self.module(x + self.scale * self.noise.normal_like(x) if self.noisy else x)


@cache
def digits(split: str = "test") -> Dataset:
    return load_dataset("digits", split)


@cache
def _trained(epsilon: float) -> dict[str, torch.Tensor]:
    data = digits("train")
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, generator = Net(), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(150):
            seen = x
            if epsilon > 0:
                seen = perturb(
                    net, x, y, epsilon=epsilon, steps=3, clip=(0.0, 1.0), generator=generator
                )
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(seen), y).backward()
            optimizer.step()
    return net.state_dict()


def network(epsilon: float = 0.0) -> Net:
    """Trained on digits, against PGD where ``epsilon`` is above 0."""
    net = Net()
    net.load_state_dict(_trained(epsilon))
    return net.eval()


def classifier(
    module: nn.Module | None = None, kind: type[PyTorchClassifier] = PyTorchClassifier, **more: Any
) -> PyTorchClassifier:
    settings = {"clip_values": (0.0, 1.0), "device_type": "cpu", **more}
    module = network() if module is None else module
    return kind(module, nn.CrossEntropyLoss(), (1, 8, 8), 10, **settings)


def noisy(scale: float = 0.2) -> PyTorchClassifier:
    return classifier(Noisy(network(), scale))


def quantum(shots: int | None = 1024, **settings: Any) -> QuantumExecutedClassifier:
    return QuantumExecutedClassifier.from_art(
        classifier(), digits("train").x[:256], shots=shots, seed=0, **settings
    )


class NoisyPredict(PyTorchClassifier):
    """A cheat: noise in ``predict``, where no gradient sees it."""

    def predict(self, x: np.ndarray, *args: Any, **settings: Any) -> np.ndarray:
        logits = super().predict(x, *args, **settings)
        return logits + np.random.normal(0, 2, logits.shape).astype(np.float32)  # noqa: NPY002


@dataclass(frozen=True)
class Attack:
    """An attack as the rungs want it, of one of ART's classes."""

    path: str
    kind: str = "gradient"
    norm: str = "inf"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path

    @property
    def single_step(self) -> bool:
        return self.path == "FastGradientMethod"

    def make(self, classifier: Any, eps: float | None, *, batch_size: int) -> Any:
        attack = getattr(evasion, self.path)
        settings = {"batch_size": batch_size, "verbose": False, "eps": eps, **self.settings}
        taken = set(attack.attack_params) - ({"eps"} if eps is None else set())
        return attack(classifier, **{k: v for k, v in settings.items() if k in taken})


FGSM = Attack("FastGradientMethod")
PGD = Attack(
    "ProjectedGradientDescent", settings={"max_iter": 6, "eps_step": 0.05, "num_random_init": 1}
)
AUTO_PGD = Attack(
    "AutoProjectedGradientDescent",
    settings={
        "max_iter": 4,
        "eps_step": 0.1,
        "nb_random_init": 2,
        "loss_type": "difference_logits_ratio",
    },
)
SQUARE = Attack("SquareAttack", kind="query", settings={"max_iter": 40, "p_init": 0.5})
HOP_SKIP_JUMP = Attack(
    "HopSkipJump", kind="query", settings={"max_iter": 2, "max_eval": 50, "init_eval": 5}
)
