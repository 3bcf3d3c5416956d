"""Placement: which qubit runs a weight's products, and which neighbour injects crosstalk.

Products run in parallel on *compute qubits*, an independent set of the coupling map. The products
of one output's sum fill time steps of ``len(compute)`` slots; every output starts a new step. A
neighbour can inject crosstalk into one product per step, provided that it is idle in that step
(Algorithm 1, lines 2-4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import disturbed, injection_sites
from qnad_art.circuits.product import Site
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import DeviceError, InvalidInputError

Order = Literal["stretched", "aware", "plain"]
ORDERS: tuple[Order, ...] = ("stretched", "aware", "plain")

LEAST_CONTRAST = 0.5
"""Lowest readout contrast P(0|0) - P(0|1) of a compute qubit that is chosen automatically.

The contrast multiplies ⟨Z⟩ of a product. On large devices some qubits have a contrast of zero or
below."""

MATCHINGS = 64
"""Number of matchings of neighbours to compute qubits among which the steps of a sum alternate."""


@dataclass(frozen=True)
class Placement:
    """How a device runs products: compute qubits, sites, and the order of the products in a sum.

    Args:
        compute: qubits that run products; none may be coupled to another.
        sites: the plain site of each compute qubit (in the order of ``compute``), followed by all
            injection sites.
        order: ``"stretched"`` adds time steps until a neighbour is free for every critical weight.
            ``"aware"`` keeps the number of steps and distributes the critical weights over them
            (the terms of a sum may run in any order); on ibm_nairobi, up to two weights in five
            find a neighbour. ``"plain"`` also keeps the order of the terms, as in the paper.
    """

    compute: tuple[int, ...]
    sites: tuple[Site, ...]
    order: Order = "stretched"
    disturbed: tuple[tuple[int, ...], ...] = ()
    """For each site the other qubits that its word disturbs; empty: none ever."""

    @cached_property
    def injections(self) -> tuple[tuple[int, ...], ...]:
        """For each compute qubit, the indices of its injection sites in order of preference."""
        return tuple(
            tuple(
                index
                for index, site in enumerate(self.sites)
                if site.qubit == q and site.neighbour is not None and site.next_to is None
            )
            for q in self.compute
        )

    @property
    def width(self) -> int:
        """One more than the largest qubit that a site uses or disturbs."""
        used = [qubit for site in self.sites for qubit in site.qubits]
        return 1 + max([*used, *(qubit for reach in self.disturbed for qubit in reach)])

    @property
    def echo(self) -> bool:
        """Whether waits of a neighbour have an echo."""
        return any(site.kind == "echo" for site in self.sites)

    def plain_sites(self, shape: Sequence[int]) -> Tensor:
        """Site index of every weight without injection, for a weight of ``shape``; int16.

        The rows of all outputs share one memory, so clone the tensor before writing to it.
        """
        slots = torch.arange(_rows(shape)[1]) % len(self.compute)
        return slots.to(torch.int16).view(1, *shape[1:]).expand(tuple(shape))

    def place(self, critical: Tensor, scores: Tensor | None = None) -> Tensor:
        """Choose the sites of one layer (Algorithm 1, lines 2 to 4).

        Args:
            critical: bool, in the weight's shape: True where injection is wanted.
            scores: criticality in the same shape. If there are too few neighbours, weights with
                larger scores are served first.

        Returns:
            Site index of every weight, int16. Critical weights with a neighbour have an injection
            site, all others a plain site.
        """
        rows, fan_in = _rows(critical.shape)
        wanted = critical.reshape(rows, fan_in).cpu()
        if self.order == "stretched":
            return self._serve_all(wanted).view(critical.shape)
        slots = self._slots(wanted, scores)
        sites = self._serve(torch.gather(wanted, 1, slots))
        placed = torch.empty_like(sites).scatter_(1, slots, sites)
        return placed.view(critical.shape)

    def _serve_all(self, wanted: Tensor) -> Tensor:
        """Assign a neighbour to every critical weight, edge by edge; the others keep their sites.

        Each edge serves two weights in succession, so that alternating polarities cancel on each
        edge. Any choice of sites can be executed in enough time steps: see
        :func:`~.time_steps.time_steps`.
        """
        rows, fan_in = wanted.shape
        served = self._matchings[self._matchings >= 0].to(torch.int16)
        if not len(served):  # no compute qubit has a neighbour
            return self.plain_sites((rows, fan_in)).clone()
        rank = (wanted.cumsum(1) - 1).clamp_min_(0) // 2 % len(served)
        return torch.where(wanted, served[rank], self.plain_sites((rows, fan_in)))

    def _slots(self, wanted: Tensor, scores: Tensor | None) -> Tensor:
        """The weight that runs in each slot of its row, (rows, fan_in)."""
        rows, fan_in = wanted.shape
        if self.order == "plain":
            return torch.arange(fan_in).expand(rows, fan_in)
        key = wanted.float() if scores is None else scores.reshape(rows, fan_in).cpu().float()
        key = torch.where(wanted, key, torch.full((), -torch.inf))
        by_criticality = torch.argsort(key, dim=1, descending=True, stable=True)
        spread = torch.empty_like(by_criticality).scatter_(
            1, self._service_order(fan_in).expand(rows, fan_in), by_criticality
        )
        # Sums without critical weights keep their order: no crosstalk means no change.
        return torch.where(wanted.any(1, keepdim=True), spread, torch.arange(fan_in))

    def _service_order(self, fan_in: int) -> Tensor:
        """Slots of a sum, starting with those that a neighbour can serve."""
        return torch.argsort((self._planned(fan_in) < 0).int(), stable=True)

    def _planned(self, fan_in: int) -> Tensor:
        """Injection site that each slot of a sum may use without conflict, or -1.

        The matching changes from step to step, so that many edges are used.
        """
        width = len(self.compute)
        slots = torch.arange(fan_in)
        return self._matchings[slots // width % len(self._matchings), slots % width]

    @cached_property
    def _matchings(self) -> Tensor:
        """Maximum matchings of compute qubits to neighbours, as site indices or -1.

        Shape (matchings, compute). Each matching is a largest set of compute qubits that can be
        served in one step, found from a different random order of the qubits.
        """
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_bipartite_matching

        helpers = sorted({s.neighbour for s in self.sites if s.neighbour is not None})
        kinds = {s.kind for s in self.sites}
        kind = next((kind for kind in ("echo", "wait") if kind in kinds), "pairs")
        direct = torch.full((len(self.compute), len(helpers)), -1)
        for index, site in enumerate(self.sites):
            first = site.partner is None and site.kind == kind and site.next_to is None
            if first and site.neighbour is not None:
                direct[self.compute.index(site.qubit), helpers.index(site.neighbour)] = index
        generator = torch.Generator().manual_seed(0)
        matchings = torch.full((MATCHINGS, len(self.compute)), -1)
        for matching in matchings:
            rows = torch.randperm(len(self.compute), generator=generator)
            columns = torch.randperm(len(helpers), generator=generator)
            shuffled = direct[rows][:, columns]
            chosen = maximum_bipartite_matching(csr_matrix(shuffled.numpy() >= 0), "column")
            for row, column in enumerate(chosen):
                if column >= 0:
                    matching[rows[row]] = shuffled[row, column]
        return matchings

    def _serve(self, wanted: Tensor) -> Tensor:
        """Assign neighbours to the critical slots of every step, (rows, slots) → site index.

        A neighbour is available if it is idle in the step (no product runs on it) and does not
        serve another product. One hop is tried before two hops, and qubits with the fewest choices
        come first. (Two hops need the same neighbour and a partner, so they are never available
        where one hop is not. They exist for plans that choose spectator injection themselves.)
        """
        rows, fan_in = wanted.shape
        width = len(self.compute)
        steps = -(-fan_in // width)
        unserved = torch.zeros(rows, steps * width, dtype=torch.bool)
        unserved[:, :fan_in] = wanted
        unserved = unserved.view(rows, steps, width)
        filled = (torch.arange(steps * width) < fan_in).view(steps, width)
        idle = {q: torch.ones(rows, steps, dtype=torch.bool) for s in self.sites for q in s.qubits}
        for position, qubit in enumerate(self.compute):
            idle[qubit] &= ~filled[:, position]
        result = torch.arange(width, dtype=torch.int16).repeat(rows, steps, 1)

        def serve(position: int, index: int, where: Tensor) -> None:
            helpers = self.sites[index].qubits[1:]
            take = unserved[..., position] & where
            for helper in helpers:
                take &= idle[helper]
            for helper in helpers:
                idle[helper] &= ~take
            unserved[..., position] &= ~take
            result[..., position][take] = index

        if self.order == "aware":
            planned = self._planned(steps * width).view(steps, width)
            for position, sites in enumerate(self.injections):
                for index in sites:
                    serve(position, index, planned[:, position] == index)
        everywhere = torch.ones(steps, dtype=torch.bool)
        for position in sorted(range(width), key=lambda p: len(self.injections[p])):
            for index in self.injections[position]:
                serve(position, index, everywhere)
        return result.view(rows, steps * width)[:, :fan_in]


def device_placement(
    device: DeviceProfile,
    *,
    compute: Sequence[int] | None = None,
    order: Order = "stretched",
    echo: bool = False,
) -> Placement:
    """Choose the placement for a device.

    Args:
        device: defines the coupling map.
        compute: compute qubits. The default is a large independent set of the coupling map, whose
            members each have an idle neighbour and a sufficient readout contrast
            (:data:`LEAST_CONTRAST`).
        order: see :class:`Placement`.
        echo: whether a neighbour that waits in |1⟩ does so within an echo on the product's qubit.

    Raises:
        InvalidInputError: two of the given compute qubits are coupled, or ``order`` is unknown.
        DeviceError: no qubit of the device has both a sufficient readout contrast and an idle
            neighbour.
    """
    check_order(order)
    chosen = _independent_set(device) if compute is None else tuple(int(q) for q in compute)
    count = len(device.qubits)
    for qubit in chosen:
        if not 0 <= qubit < count:
            raise InvalidInputError(f"compute qubit {qubit} is not one of 0 to {count - 1}.")
        coupled = set(device.neighbours[qubit]) & set(chosen)
        if coupled or chosen.count(qubit) > 1:
            raise InvalidInputError(
                f"compute qubits must be distinct and uncoupled; {qubit} is given twice or is "
                f"coupled to {sorted(coupled)}."
            )
    if not chosen:
        raise DeviceError(
            f"{device.name} has no qubit with an idle neighbour for injection and a readout "
            f"contrast (1 - p1_given_0 - p0_given_1) of {LEAST_CONTRAST} or more; choose with "
            "compute=…."
        )
    plain = [Site(qubit) for qubit in chosen]
    sites = (*plain, *injection_sites(device, chosen, echo=echo))
    return with_sites(Placement(chosen, (), order), device, sites)


def with_sites(placement: Placement, device: DeviceProfile, sites: Sequence[Site]) -> Placement:
    """The same placement with other sites, say those that a plan was made with."""
    timed = crosstalk_model(device).timed
    reach = tuple(disturbed(device, site) for site in sites) if timed else ()
    return replace(placement, sites=tuple(sites), disturbed=reach)


def check_order(order: str) -> None:
    """Raise :class:`InvalidInputError` for an order that there is not."""
    if order not in ORDERS:
        raise InvalidInputError(f"order {order!r} is not one of {', '.join(ORDERS)}.")


def _independent_set(device: DeviceProfile) -> tuple[int, ...]:
    """Greedy maximal independent set of readable qubits, those with the fewest neighbours first."""
    legible = [
        index
        for index, qubit in enumerate(device.qubits)
        if 1 - qubit.p1_given_0 - qubit.p0_given_1 >= LEAST_CONTRAST
    ]
    chosen: list[int] = []
    for qubit in sorted(legible, key=lambda q: (len(device.neighbours[q]), q)):
        if device.neighbours[qubit] and not set(device.neighbours[qubit]) & set(chosen):
            chosen.append(qubit)
    return tuple(sorted(chosen))


def _rows(shape: Sequence[int]) -> tuple[int, int]:
    """(outputs, products per sum) of a weight."""
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    return shape[0], fan_in
