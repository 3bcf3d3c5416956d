"""Crosstalk models: which coherent errors every gate, wait and preparation brings to which qubits.

``paper``
    Every injected gate is followed by ``rzz(ζt/2)`` between the product's qubit and its neighbour,
    in a frame midway between the neighbour's two states; nothing else is disturbed. An idealisation
    that no device has (the gate's own edge is part of its calibration, and other products feel the
    neighbour too), kept to compare and to load plans made under it. Source: Kundu et al., IEEE HOST
    2024, section III, doi 10.1109/HOST55342.2024.10545406.
``static-zz``
    H = ζ |11⟩⟨11| on every coupled pair at all times, qubit frames calibrated with the neighbours
    in |0⟩, a calibrated gate free of its own edge's coupling. Source: Magesan and Gambetta,
    PRA 101, 052308, 2020, doi 10.1103/PhysRevA.101.052308 (ZZ of two coupled transmons).
``echoed``
    The same, with the X echo on the control inside cx and ecr gates, so that a neighbour of the
    control turns by the average whatever the control's state. Source: Sheldon et al., PRA 93,
    060302, 2016, doi 10.1103/PhysRevA.93.060302 (echoed cross resonance); Sundaresan et al.,
    PRX Quantum 1, 020318, 2020, doi 10.1103/PRXQuantum.1.020318 (spectators of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qnad_art.circuits.product import Site, zz_angle
from qnad_art.circuits.words import turn, wait_seconds, word
from qnad_art.device.profile import DeviceProfile


@dataclass(frozen=True)
class CrosstalkModel:
    """A model, as far as the rest of the package needs to know it.

    Args:
        name: under which profiles name it.
        timed: whether the coupling of every pair acts at all times; else the rule of ``paper``.
        echoed: whether cx and ecr gates flip their control half-way.
    """

    name: str
    timed: bool
    echoed: bool = False

    def sites(self, device: DeviceProfile, compute: Sequence[int]) -> list[Site]:
        """Where crosstalk can be injected: waits, then one hop, then two hops, then beside them."""
        direct = [Site(q, n) for q in compute for n in device.neighbours[q]]
        spectators = [
            Site(site.qubit, site.neighbour, partner)
            for site in direct
            if site.neighbour is not None
            for partner in device.neighbours[site.neighbour]
            if partner != site.qubit
        ]
        if not self.timed:
            return direct + spectators
        waits = [
            Site(site.qubit, site.neighbour, kind="wait")
            for site in direct
            if site.neighbour is not None
            and wait_seconds(device, site.qubit, site.neighbour) is not None
        ]
        served = waits + spectators
        return served + direct + [b for site in served for b in beside(device, compute, site)]

    def turn(self, device: DeviceProfile, site: Site, count: int) -> float:
        """Angle in rad, not wrapped, by which a word turns the weight's phase."""
        if self.timed:
            return turn(device, site, count, echoed=self.echoed)
        return 2 * count * zz_angle(device, site) if site.neighbour is not None else 0.0

    def cost(self, device: DeviceProfile, site: Site) -> WordCost:
        """What a word of ``site`` adds to a circuit."""
        if site.neighbour is None or site.beside is not None:
            return WordCost()
        if not self.timed:
            polarity = 2 * device.qubits[site.neighbour].x_duration
            seconds = 2 * device.edge_of[site.gate(device)].duration
            return WordCost(seconds, 2, (0.0, polarity), (0, 2))
        words = [word(device, site, sign, echoed=self.echoed) for sign in (1, -1)]
        edges = [2 * made.edge_seconds for made in words]
        flips = [2 * len(made.prepare) for made in words]
        gates = 2 if site.kind == "pairs" else 0
        return WordCost(words[0].unit_seconds, gates, (edges[0], edges[1]), (flips[0], flips[1]))


@dataclass(frozen=True)
class WordCost:
    """What a word adds to a circuit.

    Args:
        unit_seconds, unit_gates: of each unit, seconds and two-qubit gates.
        edge_seconds, flips: seconds and X gates besides, of positive and of negative counts.
    """

    unit_seconds: float = 0.0
    unit_gates: int = 0
    edge_seconds: tuple[float, float] = (0.0, 0.0)
    flips: tuple[int, int] = (0, 0)


PAPER = CrosstalkModel("paper", timed=False)
STATIC_ZZ = CrosstalkModel("static-zz", timed=True)
ECHOED = CrosstalkModel("echoed", timed=True, echoed=True)
MODELS = {model.name: model for model in (PAPER, STATIC_ZZ, ECHOED)}


def crosstalk_model(device: DeviceProfile) -> CrosstalkModel:
    """The model that a profile names."""
    return MODELS[device.crosstalk_model]


def disturbed(device: DeviceProfile, site: Site) -> tuple[int, ...]:
    """Other qubits that feel what the neighbour of ``site`` (and its partner) do."""
    near = {q for helper in site.qubits[1:] for q in device.neighbours[helper]}
    return tuple(sorted(near - set(site.qubits)))


def beside(device: DeviceProfile, compute: Sequence[int], site: Site) -> list[Site]:
    """The sites of products that start after the word of ``site`` on qubits which it disturbs."""
    return [
        Site(qubit, site.neighbour, site.partner, site.kind, beside=site.qubit)
        for qubit in disturbed(device, site)
        if qubit in compute
    ]
