"""Which products run side by side: joint circuits whose products do not disturb each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qnad_art.circuits.product import Site
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Integers

Slot = tuple[Site, int]
"""What a slot of a joint circuit does, whatever the angles: site and signed pair count."""


@dataclass(frozen=True)
class JointCircuit:
    """Slots that run at once, and the products that go through them row by row.

    Args:
        slots: no qubit of one is a qubit of another or coupled to it.
        products: indices of products, (rows, slots).
    """

    slots: tuple[Slot, ...]
    products: Integers


def pack(
    device: DeviceProfile,
    sites: Sequence[Site],
    site: Integers,
    pairs: Integers,
    *,
    most: int | None = None,
) -> tuple[JointCircuit, ...]:
    """Divide products into joint circuits; every product is in exactly one row.

    Greedy: the slot with most products left is joined by others in the same order as long as they
    do not disturb those chosen, for as many rows as the shortest of them has. There are no more
    joint circuits than distinct slots.

    Args:
        device: gives the coupling map.
        sites: what ``site`` indexes.
        site, pairs: index and signed pair count of each product, (n,).
        most: slots of a joint circuit, at most.
    """
    waiting = _by_slot(sites, site, pairs)
    uses = {slot: _bits(_qubits(slot)) for slot in waiting}
    near = {
        slot: uses[slot] | _bits(q for qubit in _qubits(slot) for q in device.neighbours[qubit])
        for slot in waiting
    }
    packed = []
    while waiting:
        chosen: list[Slot] = []
        disturbed = 0
        for slot in sorted(
            waiting, key=lambda slot: (-len(waiting[slot]), slot[0].qubits, slot[1])
        ):
            if len(chosen) == most:
                break
            if not uses[slot] & disturbed:
                chosen.append(slot)
                disturbed |= near[slot]
        rows = min(len(waiting[slot]) for slot in chosen)
        products = np.stack([waiting[slot][:rows] for slot in chosen], axis=1)
        packed.append(JointCircuit(tuple(chosen), products))
        waiting = {
            slot: left[rows:] if slot in chosen else left
            for slot, left in waiting.items()
            if slot not in chosen or len(left) > rows
        }
    return tuple(packed)


def _by_slot(sites: Sequence[Site], site: Integers, pairs: Integers) -> dict[Slot, Integers]:
    """Indices of the products of each slot. Without pairs a neighbour makes no difference."""
    slots: dict[Slot, list[Integers]] = {}
    for index, count in np.unique(np.stack([site, pairs], axis=1), axis=0):
        where = sites[int(index)]
        slot = (where if count else Site(where.qubit), int(count))
        slots.setdefault(slot, []).append(np.nonzero((site == index) & (pairs == count))[0])
    return {slot: np.concatenate(found) for slot, found in slots.items()}


def _qubits(slot: Slot) -> tuple[int, ...]:
    return slot[0].qubits


def _bits(qubits: Iterable[int]) -> int:
    """A set of qubits as bits, quick to intersect."""
    return sum(1 << qubit for qubit in set(qubits))
