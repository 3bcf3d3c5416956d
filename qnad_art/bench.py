"""Performance as ratios: everything compared runs interleaved in one process."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from qnad_art.device import DEFAULT_DEVICE, load_device
from qnad_art.errors import InvalidInputError

VARIANTS: dict[str, int | None] = {"expectation": None, "shots": 1024}


@dataclass(frozen=True)
class Timing:
    """Seconds of one variant, and its ratio to the first one, run by run.

    ``low`` and ``high`` are the quartiles of the ratio; ``memory_ratio`` compares peak resident
    memory of fresh processes (``None`` where not measured).
    """

    model: str
    variant: str
    seconds: float
    ratio: float
    low: float
    high: float
    memory_ratio: float | None = None


def bench_layers(
    model: str, *, batch_size: int = 64, repeats: int = 10, device: str = DEFAULT_DEVICE
) -> list[Timing]:
    """Inference of a network: plain PyTorch, compiled expectation, compiled with 1,024 shots.

    The network is untrained but its batch norm statistics are settled, so that activations are
    spread as in a trained one. The variants run in turn, ``repeats`` times after one warm-up;
    ratios are taken within each round.
    """
    networks, x = _networks(model, batch_size, device)

    def run(network: nn.Module) -> Callable[[], object]:
        return lambda: network(x)

    with torch.no_grad():
        rounds = interleaved({name: run(network) for name, network in networks.items()}, repeats)
    memory = {name: _peak_memory(model, name, batch_size, device) for name in networks}
    return [
        replace(timing, memory_ratio=memory[timing.variant] / memory["plain"])
        for timing in timings(model, rounds)
    ]


def bench_products(*, products: int = 2000, device: str = DEFAULT_DEVICE) -> dict[str, float]:
    """Products a second: LeNet-5 compiled (batch 64) and the Aer density-matrix simulator."""
    import numpy as np

    from qnad_art.engines.aer import AerEngine
    from qnad_art.placement import device_placement

    networks, x = _networks("lenet5", 64, device)
    module = networks["expectation"]
    per_image = sum(module.products(x).values())  # type: ignore[operator]
    with torch.no_grad():
        seconds = interleaved({"compiled": lambda: module(x)}, 10)["compiled"]
    compiled = per_image * len(x) / statistics.median(seconds)
    profile = load_device(device)
    sites = device_placement(profile).sites
    random = np.random.default_rng(0)
    theta, phi = random.uniform(-1.5, 1.5, (2, products))
    site = random.integers(len(device_placement(profile).compute), size=products)
    start = time.perf_counter()
    AerEngine(profile).expectations(theta, phi, sites, site, np.zeros(products, dtype=int))
    return {"compiled": compiled, "aer": products / (time.perf_counter() - start)}


def interleaved(
    variants: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of each variant in each of ``repeats`` rounds, after one round not counted."""
    if repeats < 2:
        raise InvalidInputError(f"repeats is {repeats}; it must be at least 2.")
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(repeats + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def timings(model: str, rounds: Mapping[str, list[float]]) -> list[Timing]:
    """Medians of what :func:`interleaved` measured, and ratios to its first variant."""
    base = next(iter(rounds.values()))
    result = []
    for name, seconds in rounds.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        result.append(Timing(model, name, statistics.median(seconds), middle, low, high))
    return result


def plain_network(model: str, batch_size: int) -> tuple[nn.Module, Tensor]:
    """An untrained network with settled batch norm statistics, and a batch for it."""
    from qnad_art.models import architecture_of, build_model

    network = build_model(model)
    shape = architecture_of(network)
    size = (batch_size, shape.in_channels, shape.image_size, shape.image_size)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain average
    with torch.no_grad():
        network.train()(x)
    return network.eval(), x


def _networks(model: str, batch_size: int, device: str) -> tuple[dict[str, nn.Module], Tensor]:
    from qnad_art.conversion import convert

    plain, x = plain_network(model, batch_size)
    noisy = {name: convert(plain, x, device=device, shots=n) for name, n in VARIANTS.items()}
    return {"plain": plain, **noisy}, x


def _peak_memory(model: str, variant: str, batch_size: int, device: str) -> float:
    """Peak resident memory in bytes of a fresh process that converts and runs three batches."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure_memory, (model, variant, batch_size, device))


def _measure_memory(model: str, variant: str, batch_size: int, device: str) -> float:
    from qnad_art.conversion import convert

    network, x = plain_network(model, batch_size)
    if variant != "plain":
        network = convert(network, x, device=device, shots=VARIANTS[variant])
    with torch.no_grad():
        for _ in range(3):
            network(x)
    return _high_water_mark()


def _high_water_mark() -> float:
    """Peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before exec
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)
