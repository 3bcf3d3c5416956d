"""Which crosstalk a device can inject, what it does to the weight, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.words import turn, wait_seconds, word
from qnad_art.device.profile import DeviceProfile


def injection_sites(
    device: DeviceProfile, compute: Sequence[int], *, echo: bool = False
) -> list[Site]:
    """Sites at which crosstalk can be injected, in order of preference.

    Under a model in time: waits, two hops, one hop, and the sites next to them. Otherwise: one hop,
    two hops. With ``echo`` the waits have one.
    """
    model = crosstalk_model(device)
    direct = [Site(q, n) for q in compute for n in device.neighbours[q]]
    spectators = [
        Site(site.qubit, site.neighbour, partner)
        for site in direct
        if site.neighbour is not None
        for partner in device.neighbours[site.neighbour]
        if partner != site.qubit
    ]
    if not model.timed:
        return direct + spectators
    waits = [
        Site(site.qubit, site.neighbour, kind="echo" if echo else "wait")
        for site in direct
        if site.neighbour is not None
        and wait_seconds(device, site.qubit, site.neighbour, model=model) is not None
    ]
    # The target of an ecr gate is in a superposition between the two gates of a pair, and would be
    # left entangled with the product; only controls keep their basis.
    spectators = [
        site
        for site in spectators
        if device.two_qubit_gate != "ecr" or site.gate(device)[0] == site.neighbour
    ]
    served = waits + spectators
    own = served + direct
    return own + [other for site in own for other in next_to(device, compute, site)]


def possible(device: DeviceProfile, site: Site) -> bool:
    """Whether a device has the qubits and edges of ``site``, and a lever for its waits.

    For sites with words of their own; those of products next to them follow from these.
    """
    qubits = site.qubits
    if max(qubits) >= len(device.qubits):
        return False
    if any(b not in device.neighbours[a] for a, b in itertools.pairwise(qubits)):
        return False
    if site.kind == "pairs" or site.neighbour is None:
        return True
    model = crosstalk_model(device)
    return wait_seconds(device, site.qubit, site.neighbour, model=model) is not None


def phase_turn(device: DeviceProfile, site: Site, count: int) -> float:
    """Angle in rad, not wrapped, by which a word turns the weight's phase; models in time only."""
    return turn(device, site, count, model=crosstalk_model(device))


def word_cost(device: DeviceProfile, site: Site) -> WordCost:
    """What a word of a site adds to a circuit."""
    model = crosstalk_model(device)
    if site.neighbour is None or site.next_to is not None:
        return WordCost()
    if not model.timed:
        polarity = 2 * device.qubits[site.neighbour].x_duration
        seconds = 2 * device.edge_of[site.gate(device)].duration
        return WordCost(seconds, 2, (0.0, polarity), (0, 2))
    once, twice, reverse = (word(device, site, count, model=model) for count in (1, 2, -1))
    unit = twice.seconds - once.seconds
    edges = [made.seconds - unit for made in (once, reverse)]
    flips = [sum(o.name == "x" for o in made.block()) for made in (once, reverse)]
    gates = 2 if site.kind == "pairs" else 0
    return WordCost(unit, gates, (edges[0], edges[1]), (flips[0], flips[1]))


@dataclass(frozen=True)
class WordCost:
    """What a word adds to a circuit.

    Args:
        unit_seconds, unit_gates: seconds and two-qubit gates of each unit.
        edge_seconds, flips: further seconds and X gates, for positive and for negative counts.
    """

    unit_seconds: float = 0.0
    unit_gates: int = 0
    edge_seconds: tuple[float, float] = (0.0, 0.0)
    flips: tuple[int, int] = (0, 0)


def disturbed(device: DeviceProfile, site: Site) -> tuple[int, ...]:
    """Other qubits that feel what the neighbour of ``site`` (and its partner) do."""
    near = {q for helper in site.qubits[1:] for q in device.neighbours[helper]}
    return tuple(sorted(near - set(site.qubits)))


def next_to(device: DeviceProfile, compute: Sequence[int], site: Site) -> list[Site]:
    """The sites of products that start after the word of ``site`` on qubits which it disturbs.

    There are none next to a pair on the product's own edge, which runs apart from all others.
    """
    if site.neighbour is None or (site.kind == "pairs" and site.partner is None):
        return []
    return [
        Site(qubit, site.neighbour, site.partner, site.kind, next_to=site.qubit)
        for qubit in disturbed(device, site)
        if qubit in compute
    ]
