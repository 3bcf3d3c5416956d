"""ART's PGD with ten steps, on the plain classifier and on quantum-executed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.models.architectures import architecture_of
from qnad_art.network.module import QuantumExecutedModule
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import NETWORKS, variants
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Case, Result, compared

TARGETS = {"shots": 1.6}


def measure(settings: Settings) -> Iterator[Result]:
    """By place, network and batch; all of ART's own overhead is in it, on both sides."""
    for place in settings.at_hand():
        for model in settings.networks(NETWORKS):
            for batch in settings.sizes((64,)):
                case: Case = {"network": model, "batch": batch, "on": place}
                yield from _case(case, settings)


def _case(case: Case, settings: Settings) -> list[Result]:
    networks, images = variants(str(case["network"]), int(case["batch"]), settings.device)
    x = images.numpy()
    y = np.arange(len(x)) % architecture_of(networks["plain"]).num_classes

    def run(network: nn.Module) -> Callable[[], object]:
        quantum = isinstance(network, QuantumExecutedModule)
        classifier = (QuantumExecutedClassifier if quantum else PyTorchClassifier)(
            network,
            nn.CrossEntropyLoss(),
            x.shape[1:],
            architecture_of(networks["plain"]).num_classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if case["on"] == "cuda" else "cpu",
        )
        attack = ProjectedGradientDescentPyTorch(
            classifier, eps=0.1, eps_step=0.02, max_iter=10, batch_size=len(x), verbose=False
        )
        return lambda: attack.generate(x, y)

    runs = {name: run(network) for name, network in networks.items()}
    series = interleaved(runs, settings.rounds, budget=settings.budget)
    return compared("attack", case, series, targets=TARGETS)
