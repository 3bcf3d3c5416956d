"""What a neighbour does to a product, as operations in time: prepare, repeat a unit, restore.

A *word* is a site and a signed count. The neighbour is put into |1⟩ (where the model asks for it),
the unit follows ``|count|`` times, and the neighbour is put back. Unit: two native gates in a row
(``kind="pairs"``), or a wait of a length that turns the product by about :data:`UNIT_RADIANS`
(``kind="wait"``). A negative count puts the product's own qubit between two X: the turn changes its
sign in any frame.

``kind="echo"`` is the wait with an X on the product's qubit and on the neighbour in the middle,
after which the units follow once more: what turns the product's qubit all the time, a detuned
frequency, cancels, and the coupling to the neighbour, which is in |1⟩ in one half only, does not
(Hahn echo, Phys. Rev. 80, 580, 1950, doi 10.1103/PhysRev.80.580). A positive count has the
neighbour in |1⟩ in the first half, a negative one in the second.

Time step (all products of a step end together):

    product with a word:  sx rz sx rz | prepare, units, restore | sx, wait
    any other product:    (|0⟩)       | (|0⟩)                   | sx rz sx rz sx

The last part, the *window*, is as long as three ``sx`` of the slowest qubit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qnad_art.circuits.crosstalk_models import CrosstalkModel
from qnad_art.circuits.product import Site
from qnad_art.circuits.timeline import Operation, shifted
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError

UNIT_RADIANS = 0.06
"""Turn of the product by one unit of waiting; the shortest is :data:`SHORTEST_WAIT`."""
SHORTEST_WAIT = 20e-9
LONGEST_WAIT = 1e-6
"""If the coupling is so weak that a unit would last longer, relaxation would win: no lever."""


@dataclass(frozen=True)
class Word:
    """The parts of a word, each starting at 0, and their lengths in seconds."""

    prepare: tuple[Operation, ...]
    unit: tuple[Operation, ...]
    restore: tuple[Operation, ...]
    edge_seconds: float
    """Of preparing, of what is in the middle, and of restoring."""
    unit_seconds: float
    count: int
    middle: tuple[Operation, ...] | None = None
    """What comes between two halves of ``count`` units each; ``None``: there is one half."""

    @property
    def seconds(self) -> float:
        """Of the whole block."""
        half = self.edge_seconds + self.count * self.unit_seconds
        return half + (self.edge_seconds if self.middle is None else half + self.edge_seconds)

    def block(self) -> list[Operation]:
        """All of it, from 0 on."""
        time, operations = 0.0, []
        for edge in (self.prepare, *(() if self.middle is None else (self.middle,))):
            operations += shifted(edge, time)
            time += self.edge_seconds
            for _ in range(self.count):
                operations += shifted(self.unit, time)
                time += self.unit_seconds
        return operations + shifted(self.restore, time)


def word(device: DeviceProfile, site: Site, count: int, *, model: CrosstalkModel) -> Word:
    """What the neighbour of ``site`` does ``count`` times.

    Of a site next to another product, the part of that product's qubit is left out.

    Args:
        device: durations and ZZ rates.
        site: with a neighbour.
        count: signed number of units.
        model: says whether gates echo, and the rates.
    """
    assert site.neighbour is not None
    served = site.qubit if site.next_to is None else site.next_to
    unit, seconds = _unit(device, site, served, model)

    def flips(*qubits: int) -> tuple[Operation, ...]:
        here = [qubit for qubit in qubits if site.next_to is None or qubit != served]
        return tuple(Operation("x", (q,), 0.0, device.qubits[q].x_duration) for q in here)

    def longest(*qubits: int) -> float:
        return max((device.qubits[qubit].x_duration for qubit in qubits), default=0.0)

    both = (site.neighbour, served)
    if site.kind == "echo":
        first, last = ((site.neighbour,), (served,)) if count > 0 else ((), both)
        edges = flips(*first), flips(*both), flips(*last)
        return Word(edges[0], tuple(unit), edges[2], longest(*both), seconds, abs(count), edges[1])
    flipped: tuple[int, ...] = (site.neighbour,) if excites(device, site, model=model) else ()
    flipped += (served,) if count < 0 else ()
    edge = flips(*flipped)
    return Word(edge, tuple(unit), edge, longest(*flipped), seconds, abs(count))


def excites(device: DeviceProfile, site: Site, *, model: CrosstalkModel) -> bool:
    """Whether the neighbour must be in |1⟩ for the word to turn anything.

    The control of an echoed gate spends half of it in |1⟩ whatever it was; a pair of gates on the
    product's own edge turns nothing.
    """
    if site.kind != "pairs":
        return True
    if site.partner is None:
        return False
    control, _ = site.gate(device)
    return not (model.echoes(device.two_qubit_gate) and control == site.neighbour)


def turn(device: DeviceProfile, site: Site, count: int, *, model: CrosstalkModel) -> float:
    """Angle in rad, not wrapped, by which a word turns the weight's phase, relaxation aside."""
    if count == 0 or site.next_to is not None or site.neighbour is None:
        return 0.0
    if site.kind == "pairs" and site.partner is None:
        return 0.0
    made = word(device, site, count, model=model)
    seconds = made.count * made.unit_seconds
    # Each pulse acts at its centre: the neighbour is in |1⟩ for as long as one X more. Of the last
    # half of an echo it is the same.
    excited = made.edge_seconds + seconds
    if not excites(device, site, model=model):
        excited = seconds / 2
    return math.copysign(1, -count) * model.rate(device, site.qubit, site.neighbour) * excited


def window_seconds(device: DeviceProfile) -> float:
    """Length of the last part of a time step: three sx of the slowest qubit."""
    return 3 * max(qubit.sx_duration for qubit in device.qubits)


def flip_seconds(device: DeviceProfile) -> float:
    """Length of the X before the measurement, in the flipped half of twirled readout."""
    return max(qubit.x_duration for qubit in device.qubits)


def wait_seconds(
    device: DeviceProfile, first: int, second: int, *, model: CrosstalkModel
) -> float | None:
    """Length of a unit of waiting next to a neighbour, whole nanoseconds; ``None``: no lever."""
    programmed = device.edge_of[device.native_gate(first, second)].wait
    if programmed is not None:
        return programmed
    rate = abs(model.rate(device, first, second))
    if rate * LONGEST_WAIT < UNIT_RADIANS:
        return None
    return max(SHORTEST_WAIT, round(UNIT_RADIANS / rate, 9))


def _unit(
    device: DeviceProfile, site: Site, served: int, model: CrosstalkModel
) -> tuple[list[Operation], float]:
    """One repetition, with the wait of the product's own qubit where it is here."""
    assert site.neighbour is not None
    waiting = [site.qubit] if site.next_to is None else []
    if site.kind != "pairs":
        seconds = wait_seconds(device, served, site.neighbour, model=model)
        if seconds is None:
            raise InvalidInputError(
                f"The coupling of qubits {served} and {site.neighbour} is too weak: a wait of "
                f"{LONGEST_WAIT:g} s would turn by less than {UNIT_RADIANS} rad."
            )
        waits = [Operation("delay", (q,), 0.0, seconds) for q in (site.neighbour, *waiting)]
        return waits, seconds
    gate = device.edge_of[site.gate(device)]
    pair = (gate.control, gate.target)
    waiting = [qubit for qubit in waiting if qubit not in pair]
    operations = []
    for start in (0.0, gate.duration):
        operations.append(Operation(device.two_qubit_gate, pair, start, gate.duration))
        operations += [Operation("delay", (q,), start, gate.duration) for q in waiting]
    return operations, 2 * gate.duration
