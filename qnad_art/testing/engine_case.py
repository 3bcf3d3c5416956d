"""Test cases for execution engines: random products, and layers under random crosstalk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from qnad_art.circuits.product import Site
from qnad_art.circuits.response import Readout, response_table
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Array, CircuitEngine, Integers
from qnad_art.network.conversion import convert
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.placement import device_placement
from qnad_art.testing.checks import expect_numbers
from qnad_art.testing.specimens import built, install_random_crosstalk

COMPUTE_QUBITS = 3
"""Number of compute qubits in a case; tables of a whole large device would take long."""


class Products(NamedTuple):
    """The arguments of :meth:`CircuitEngine.expectations`."""

    theta: Array
    phi: Array
    sites: tuple[Site, ...]
    site: Integers
    pairs: Integers

    def of(self, indices: Any) -> Products:
        """Copies of the products at ``indices``."""
        arrays = {name: array[indices] for name, array in self.arrays().items()}
        return self._replace(**arrays)

    def arrays(self) -> dict[str, Any]:
        """The arrays, of which each product has one element."""
        return {"theta": self.theta, "phi": self.phi, "site": self.site, "pairs": self.pairs}


@dataclass(frozen=True)
class Case:
    """An engine's class (or factory), its settings, and the tolerances of the checks."""

    factory: Callable[..., CircuitEngine]
    settings: Mapping[str, Any]
    device: DeviceProfile
    products: int
    max_pairs: int
    shots: int
    tolerance: float
    level: float

    @cached_property
    def exact(self) -> bool:
        """Whether the engine declares that it can compute exact expectations."""
        return bool(self.engine(shots=self.shots).exact)

    def engine(self, **settings: Any) -> CircuitEngine:
        """Build an engine with the case's settings, updated by these."""
        return self.factory(self.device, **{**self.settings, **settings})

    def own_way(self, **settings: Any) -> CircuitEngine:
        """Build an engine that computes exactly, if it can, and uses shots otherwise."""
        return self.engine(shots=None if self.exact else self.shots, **settings)

    @cached_property
    def compute(self) -> tuple[int, ...]:
        """The compute qubits of the case."""
        return device_placement(self.device).compute[:COMPUTE_QUBITS]

    @cached_property
    def drawn(self) -> Products:
        """Random products at every kind of site: plain, direct and spectator."""
        random = np.random.default_rng(0)
        sites = device_placement(self.device, compute=self.compute).sites
        theta, phi = random.uniform(-np.pi, np.pi, (2, self.products))
        site = random.integers(len(sites), size=self.products)
        injectable = np.array([s.neighbour is not None for s in sites])[site]
        pairs = random.integers(-self.max_pairs, self.max_pairs + 1, size=self.products)
        return Products(theta, phi, sites, site, pairs * injectable)

    def expected(self, readout: Readout) -> Array:
        """⟨Z⟩ of :attr:`drawn` according to the response table."""
        made = self.drawn
        table = response_table(self.device, made.sites, max_pairs=self.max_pairs, readout=readout)
        return table.expectation(made.theta, made.phi, made.site, made.pairs)

    def layer(self, layer: nn.Module, x: Tensor, readout: Readout) -> QuantumExecutedModule:
        """Convert one layer to a quantum-executed module under random crosstalk."""
        module = convert(
            nn.Sequential(built(layer)).double().eval(),
            x,
            device=self.device,
            compute=self.compute,
            max_pairs=self.max_pairs,
            readout=readout,
            headroom=1.25,  # outcomes are never certain, so that z-scores of counts are normal
            shots=None if self.exact else self.shots,
            seed=0,
        )
        install_random_crosstalk(module, most=self.max_pairs)
        return module


def run_products(engine: CircuitEngine, products: Products) -> Array:
    """Run the products and check the shape and range of the expectations."""
    every = np.arange(len(products.theta))
    found = engine.expectations(*products.of(every))  # copies, in case the engine changes them
    expect_numbers(found, products.theta.shape, low=-1 - 1e-9, high=1 + 1e-9)
    return found
