"""Does the compiled path equal the circuits? Random products, compiled against an engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qnad_art.circuits.response import MAX_PAIRS, Readout, response_table
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines import build_engine
from qnad_art.errors import InvalidInputError
from qnad_art.layers.mappings import ARCSINE, DEFAULT_MAPPING, Mapping, load_mapping
from qnad_art.placement.placement import device_placement
from qnad_art.plugins.discovery import call_plugin

COUNTS_LEVEL = 1e-4
"""Level of the test of counts: a correct program fails once in 10,000 runs."""


@dataclass(frozen=True)
class Verification:
    """Outcome of :func:`verify_device`.

    ``largest_difference`` between compiled expectations and the engine's exact ones (``None`` where
    it only counts); ``chi2_p_value`` of the sum of squared z-scores of the counts, ``largest_z``
    among them (``None`` without counts).
    """

    device: str
    engine: str
    readout: Readout
    products: int
    tolerance: float
    largest_difference: float | None
    shots: int | None
    largest_z: float | None
    chi2_p_value: float | None

    @property
    def passed(self) -> bool:
        """Within tolerance, and counts within :data:`COUNTS_LEVEL`."""
        counts = self.chi2_p_value is None or self.chi2_p_value > COUNTS_LEVEL
        return counts and (
            self.largest_difference is None or self.largest_difference <= self.tolerance
        )


def verify_device(
    device: DeviceProfile,
    *,
    engine: str = "aer",
    products: int = 500,
    readout: Readout = "twirled",
    shots: int | None = 4096,
    tolerance: float = 1e-9,
    max_pairs: int = MAX_PAIRS,
    mapping: str = DEFAULT_MAPPING,
    seed: int = 0,
) -> Verification:
    """Compare compiled products of activations and weights with whole circuits run on an engine.

    Args:
        device: the noise; every kind of site of its placement is drawn, direct and spectator.
        engine: its name; one that cannot give expectations is compared by counts only.
        products: number of random products (activation, weight, site, signed pair count).
        readout: ``"twirled"`` or ``"raw"``.
        shots: also compare counts of so many shots, by a chi-square test of z-scores at level
            :data:`COUNTS_LEVEL`; ``None`` leaves that out.
        tolerance: largest difference of expectations allowed.
        max_pairs: pair counts are drawn from ``-max_pairs`` to ``max_pairs``.
        mapping: name of the mapping, which gives the circuits' angles and the compiled terms.
        seed: of the draw and of the engine.
    """
    if products < 1:
        raise InvalidInputError(f"products is {products}; it must be at least 1.")
    gives_expectations = call_plugin("engine", engine, lambda made: bool(made.exact))
    if shots is None and not gives_expectations:
        raise InvalidInputError(f"engine {engine!r} only counts: give shots, say 4096.")
    sites = device_placement(device).sites
    table = response_table(device, sites, max_pairs=max_pairs, readout=readout)
    random = np.random.default_rng(seed)
    activation, weight = np.sin(random.uniform(-np.pi / 2, np.pi / 2, (2, products)))
    site = random.integers(len(sites), size=products)
    injectable = np.array([s.neighbour is not None for s in sites])[site]
    pairs = random.integers(-max_pairs, max_pairs + 1, size=products) * injectable

    chosen = load_mapping(mapping)
    inputs, weights = _compiled_terms(chosen, activation), _compiled_terms(ARCSINE, weight)
    compiled = table.bilinear(inputs, weights, site, pairs)
    theta, phi = chosen.theta(activation), np.arcsin(weight)

    def run(**settings: int) -> npt.NDArray[np.float64]:
        built = build_engine(engine, device, readout=readout, **settings)
        return built.expectations(theta, phi, sites, site, pairs)

    largest_difference = largest_z = p_value = None
    if gives_expectations:
        largest_difference = float(np.abs(compiled - run()).max())
    if shots is not None:
        largest_z, p_value = _compare_counts(compiled, run(shots=shots, seed=seed), shots)
    return Verification(
        device=device.name,
        engine=engine,
        readout=readout,
        products=products,
        tolerance=tolerance,
        largest_difference=largest_difference,
        shots=shots,
        largest_z=largest_z,
        chi2_p_value=p_value,
    )


def _compiled_terms(mapping: Mapping, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(1, cos, sin) of the angles of ``x`` as the compiled layers compute them, (n, 3)."""
    values = torch.from_numpy(x)
    terms = (torch.ones_like(values), mapping.cosine(values, 1.0), mapping.sine(values, 1.0))
    return torch.stack(terms, -1).numpy()


def _compare_counts(
    expected: npt.NDArray[np.float64], counted: npt.NDArray[np.float64], shots: int
) -> tuple[float, float]:
    """Largest |z|, and two-sided p-value of Σ z² ~ χ²(n), of products that are not certain."""
    from scipy.stats import chi2

    variance = (1 - expected**2) / shots
    uncertain = variance * shots**2 > 25  # enough of both outcomes for a normal z
    z = (counted - expected)[uncertain] / np.sqrt(variance[uncertain])
    if len(z) == 0:
        return 0.0, 1.0
    tail = chi2.cdf(np.sum(z**2), len(z))
    return float(np.abs(z).max()), float(2 * min(tail, 1 - tail))
