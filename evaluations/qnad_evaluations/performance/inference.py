"""Inference: plain PyTorch, the compiled expectation, and the compiled layers with shots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import NETWORKS, variants
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Case, Result, compared

TARGETS = {
    "cpu": {"expectation": 1.05, "shots": 1.5},
    "cuda": {"expectation": 1.05, "shots": 1.3},
}


def measure(settings: Settings) -> Iterator[Result]:
    """By place, network, batch and precision; all variants have the same type throughout."""
    precisions = settings.precisions[:1] if settings.quick else settings.precisions
    for place in settings.at_hand():
        for model in settings.networks(NETWORKS):
            for batch in settings.sizes((1, 64, 256)):
                for precision in precisions:
                    case: Case = {"network": model, "batch": batch, "type": precision, "on": place}
                    yield from _case(case, settings)


def _case(case: Case, settings: Settings) -> list[Result]:
    networks, x = variants(str(case["network"]), int(case["batch"]), settings.device)
    kind = getattr(torch, str(case["type"]))
    networks = {name: network.to(case["on"], kind) for name, network in networks.items()}
    x = x.to(case["on"], kind)

    def run(network: nn.Module) -> Callable[[], object]:
        return lambda: network(x)

    runs = {name: run(network) for name, network in networks.items()}
    with torch.no_grad():
        series = interleaved(runs, settings.rounds, budget=settings.budget)
    return compared("inference", case, series, targets=TARGETS[str(case["on"])])
