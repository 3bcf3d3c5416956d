"""Products a second, of the same random products with the same noise, on every simulator here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qnad_art.circuits.aer_noise import site_noise_model
from qnad_art.circuits.product import Site, product_circuit
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines import build_engine
from qnad_art.placement.placement import device_placement
from qnad_art.plugins.discovery import plugin_names
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import variants
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Result, compared

SHOTS = 1024
Array = npt.NDArray[np.float64]


def measure(settings: Settings) -> Iterator[Result]:
    """Compiled (LeNet-5, batch 64) and circuit by circuit; ratios are of time, to Aer's first."""
    profile = load_device(settings.device)
    series: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    simulators = _simulators(profile)
    for name, (run, count) in simulators.items():
        count = min(count, 20) if settings.quick else count
        products = _products(profile, count)
        series[name], counts[name] = partial(run, *products), count
    for name, (module, x) in _compiled(settings).items():
        counts[name] = sum(module.products(x).values()) * len(x)
        series[name] = partial(_forward, module, x)
    rounds = interleaved(series, min(settings.rounds, 5), budget=settings.budget)
    times = {name: [s / counts[name] for s in seconds] for name, seconds in rounds.items()}
    for result in compared("products", {}, times):
        rate = 1 / result.value
        yield Result("products", {}, result.variant, rate, "products/s", result.ratio)


def _products(profile: DeviceProfile, count: int) -> tuple[Array, Array, Any]:
    """Angles, and index of the compute qubit."""
    random = np.random.default_rng(0)
    theta, phi = random.uniform(-np.pi / 2, np.pi / 2, (2, count))
    return theta, phi, random.integers(len(device_placement(profile).compute), size=count)


def _simulators(profile: DeviceProfile) -> dict[str, tuple[Callable[..., object], int]]:
    """How each runs products, and how many of them it is given."""
    sites = device_placement(profile).sites

    def engine(name: str, **options: Any) -> Callable[..., object]:
        built = build_engine(name, profile, **options)
        return lambda theta, phi, site: built.expectations(
            theta, phi, sites, site, np.zeros(len(theta), dtype=int)
        )

    found: dict[str, tuple[Callable[..., object], int]] = {
        "Aer, density matrix": (engine("aer"), 2000),
        f"Aer, {SHOTS:,} shots": (engine("aer", shots=SHOTS), 500),
        f"Aer's EstimatorV2, precision of {SHOTS:,} shots": (_Estimator(profile, sites), 200),
    }
    if "pennylane" in plugin_names("engine"):
        found["PennyLane, mixed state"] = (engine("pennylane"), 500)
    return found


class _Estimator:
    """Aer's EstimatorV2 with the noise of each compute qubit, products of a qubit in one job."""

    def __init__(self, profile: DeviceProfile, sites: tuple[Site, ...]) -> None:
        self._profile, self._sites = profile, sites

    def __call__(self, theta: Array, phi: Array, site: Any) -> list[Array]:
        """⟨Z⟩ of the products, by compute qubit."""
        from qiskit.circuit import Parameter
        from qiskit.quantum_info import SparsePauliOp
        from qiskit_aer.primitives import EstimatorV2

        angles = {"theta": Parameter("theta"), "phi": Parameter("phi")}
        found = []
        for index in np.unique(site):
            place = self._sites[int(index)]
            circuit = product_circuit(self._profile, place, 0, **angles, measure=False)
            noise = site_noise_model(self._profile, place)
            options = {
                "backend_options": {"method": "density_matrix", "noise_model": noise},
                "default_precision": SHOTS**-0.5,
            }
            values = {angles["theta"]: theta[site == index], angles["phi"]: phi[site == index]}
            job = EstimatorV2(options=options).run([(circuit, SparsePauliOp("Z"), values)])
            found.append(job.result()[0].data.evs)
        return found


def _compiled(settings: Settings) -> dict[str, tuple[Any, torch.Tensor]]:
    networks, x = variants("lenet5", 64, settings.device)
    return {
        "compiled, expectation": (networks["expectation"], x),
        f"compiled, {SHOTS:,} shots": (networks["shots"], x),
    }


def _forward(module: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        module(x)


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
