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
        slots: no qubit of one is a qubit of another or coupled to it, except that a product next to
            a word (:attr:`Site.next_to`) shares that word with the product which it serves.
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
    joint circuits than distinct slots. A word disturbs all that is coupled to its qubits: products
    without a word of their own stay away from it, except those that were compiled next to it.

    Args:
        device: gives the coupling map.
        sites: what ``site`` indexes.
        site, pairs: index and signed pair count of each product, (n,).
        most: slots of a joint circuit, at most.
    """
    waiting = _by_slot(sites, site, pairs)
    uses = {slot: _bits(slot[0].qubits) for slot in waiting}
    near = {
        slot: uses[slot] | _bits(q for qubit in slot[0].qubits for q in device.neighbours[qubit])
        for slot in waiting
    }

    words = {slot: word_of(slot) for slot in waiting}

    def joins(slot: Slot, chosen: Sequence[Slot]) -> bool:
        """Whether it is apart from all of those chosen that do not share its word."""
        coupled = (slot[0].qubit, *device.neighbours[slot[0].qubit])
        return all(
            other[0].qubit not in coupled
            if words[other] == words[slot]
            else not uses[slot] & near[other]
            for other in chosen
        )

    packed = []
    while waiting:
        chosen: list[Slot] = []
        running: set[Slot] = set()
        disturbed = 0
        for slot in sorted(
            waiting, key=lambda slot: (-len(waiting[slot]), slot[0].qubits, slot[1])
        ):
            if len(chosen) == most:
                break
            word = words[slot]
            if not uses[slot] & disturbed or (word in running and joins(slot, chosen)):
                chosen.append(slot)
                running |= {word} if word else set()
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


def word_of(slot: Slot) -> Slot | None:
    """The word that runs in a slot, as the slot of the product which it serves."""
    site, count = slot
    if not count or site.next_to is None:
        return slot if count else None
    return Site(site.next_to, site.neighbour, site.partner, site.kind), count


def _by_slot(sites: Sequence[Site], site: Integers, pairs: Integers) -> dict[Slot, Integers]:
    """Indices of the products of each slot. Without pairs a neighbour makes no difference."""
    slots: dict[Slot, list[Integers]] = {}
    for index, count in np.unique(np.stack([site, pairs], axis=1), axis=0):
        where = sites[int(index)]
        slot = (where if count else Site(where.qubit), int(count))
        slots.setdefault(slot, []).append(np.nonzero((site == index) & (pairs == count))[0])
    return {slot: np.concatenate(found) for slot, found in slots.items()}


def _bits(qubits: Iterable[int]) -> int:
    """A set of qubits as bits, quick to intersect."""
    return sum(1 << qubit for qubit in set(qubits))
