"""How table fill, conversion, plan and compile grow with weights and qubits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from qnad_art.circuits.response import response_table
from qnad_art.crosstalk.random import Random
from qnad_art.device.catalogue import load_device
from qnad_art.network.conversion import convert
from qnad_art.placement.placement import device_placement
from qnad_evaluations.performance.conversion import compile_again
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.products import seconds_of
from qnad_evaluations.performance.results import Case, Result

WEIGHTS = (10**4, 10**5, 10**6, 10**7, 10**8)
DEVICES = ("ibm_nairobi", "ibm_guadalupe", "ibm_cairo", "ibm_brooklyn", "ibm_sherbrooke")
"""7, 16, 27, 65 and 127 qubits."""
REPEATS = 3


def measure(settings: Settings) -> Iterator[Result]:
    """One square layer of so many weights on one device; then one size on every device."""
    weights, devices = (WEIGHTS[:3], DEVICES[:2]) if settings.quick else (WEIGHTS, DEVICES)
    for count in weights:
        yield from _layer(settings.device, count)
    for device in devices:
        profile = load_device(device)
        placement = device_placement(profile)
        fill = partial(response_table, profile, placement.sites, cache=False)
        qubits = len(profile.qubits)
        case: Case = {
            "weights": "",
            "device": device,
            "qubits": qubits,
            "sites": len(placement.sites),
        }
        repeats = 1 if qubits > 30 else REPEATS
        yield from _timed(case, {"fill the table": fill}, repeats)
        if device != settings.device:
            yield from _layer(device, 10**6)


def _layer(device: str, count: int) -> Iterator[Result]:
    profile = load_device(device)
    side = math.isqrt(count)
    plain = nn.Linear(side, side)
    module = convert(plain, torch.rand(8, side), device=profile, shots=1024)
    case: Case = {
        "weights": side * side,
        "device": device,
        "qubits": len(profile.qubits),
        "sites": len(module.placement.sites),
    }
    runs: dict[str, Callable[[], object]] = {
        "convert": partial(convert, plain, device=profile),
        "plan": partial(Random().plan, module, torch.empty(0), torch.empty(0)),
        "compile": partial(compile_again, module),
    }
    yield from _timed(case, runs, 1 if count > 10**7 else REPEATS)


def _timed(case: Case, runs: Mapping[str, Callable[[], object]], repeats: int) -> Iterator[Result]:
    for name, run in runs.items():
        seconds = statistics.median(seconds_of(run) for _ in range(repeats))
        yield Result("growth", dict(case), name, seconds, "s")
