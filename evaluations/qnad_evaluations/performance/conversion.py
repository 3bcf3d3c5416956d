"""Conversion, calibration, plan and first compile of the networks, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from qnad_art.crosstalk.random import Random
from qnad_art.network.conversion import convert
from qnad_art.network.module import QuantumExecutedModule
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import NETWORKS, plain_network
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Case, Result, compared

TARGETS = {"convert": 2.0, "plan": 3.0}
"""Seconds, of VGG16-BN and everything smaller."""
IMAGES = 64


def measure(settings: Settings) -> Iterator[Result]:
    """By network; response tables come from the cache, and the plan is for 30 % of the weights.

    ``calibrate`` has a ratio to a plain pass over the same images.
    """
    for model in settings.networks(NETWORKS):
        plain, x = plain_network(model, IMAGES)
        module = convert(plain, x, device=settings.device, shots=1024)
        runs: dict[str, Callable[[], object]] = {
            "convert": partial(convert, plain, device=settings.device),
            "plan": partial(Random().plan, module, x, torch.zeros(len(x), dtype=torch.int64)),
            "compile": partial(compile_again, module),
        }
        seconds = interleaved(runs, min(settings.rounds, 5), budget=settings.budget)
        case: Case = {
            "network": model,
            "weights": sum(p.numel() for p in plain.parameters()),
        }
        for name, values in seconds.items():
            yield from compared("conversion", case, {name: values}, targets=TARGETS)
        passes = {
            f"a plain pass over {IMAGES} images": partial(_forward, plain, x),
            "calibrate, percentile 100": partial(module.calibrate, x, percentile=100.0),
            "calibrate, percentile 99.5": partial(module.calibrate, x, percentile=99.5),
        }
        rounds = interleaved(passes, min(settings.rounds, 5), budget=settings.budget)
        yield from compared("conversion", case, rounds)


def compile_again(module: QuantumExecutedModule) -> None:
    """Effective weights of all layers, anew."""
    for layer in module.layers.values():
        layer.invalidate()
        layer.kernels()


def _forward(network: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        network(x)
