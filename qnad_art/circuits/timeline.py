"""Operations in time → a circuit that has the device's relaxation and ZZ coupling in between.

Every operation acts at its centre: a pulse, a gate, and a wait, whose relaxation is that of its
duration. Between those instants each qubit turns by its detuning, and each coupled pair of qubits
by H = ζ |11⟩⟨11|, in frames that were calibrated with the neighbours in |0⟩, except while a gate
runs on the pair itself: its own coupling is part of what calibration made of the gate. A virtual
``rz`` takes no time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import CrosstalkModel
from qnad_art.device.profile import DeviceProfile

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

ECHO = "echo"
"""Label of the X that an echoed cross-resonance gate contains; its error is part of the gate's."""
SHORTEST = 1e-13
"""Seconds that rounding may leave between two operations that follow each other."""


@dataclass(frozen=True)
class Operation:
    """One operation on physical qubits.

    Args:
        name: ``sx``, ``x``, ``rz``, ``delay``, or the native two-qubit gate (control, target).
        qubits: the qubits that it acts on.
        start, duration: in seconds.
        angle: angle of ``rz`` in rad, a number or a parameter.
    """

    name: str
    qubits: tuple[int, ...]
    start: float
    duration: float = 0.0
    angle: Any = 0.0

    @property
    def end(self) -> float:
        """When it is over, in seconds."""
        return self.start + self.duration

    @property
    def centre(self) -> float:
        """When it acts, in seconds."""
        return self.start + self.duration / 2


def shifted(operations: Iterable[Operation], by: float) -> list[Operation]:
    """The same operations ``by`` seconds later."""
    return [Operation(o.name, o.qubits, o.start + by, o.duration, o.angle) for o in operations]


def append_timeline(
    circuit: QuantumCircuit,
    errors: DeviceErrors,
    operations: Sequence[Operation],
    *,
    qubits: Sequence[int],
    until: float,
    model: CrosstalkModel,
    begun: Sequence[int] = (),
) -> None:
    """Append operations, and what happens to their qubits in between.

    A qubit waits from its first operation on (before, it is in |0⟩, where nothing happens to it).

    Args:
        circuit: gets the operations; its qubit i is ``qubits[i]``.
        errors: errors of the device. Those of its gates come from the noise model with which the
            circuit is run.
        operations: in any order; none overlaps another on a qubit.
        qubits: physical qubits of the circuit.
        until: seconds; the waits end there.
        model: gives the ZZ rates, and says whether gates echo.
        begun: qubits that have left |0⟩ before, at time 0.
    """
    local = {physical: index for index, physical in enumerate(qubits)}
    every = [*operations, *_waits(operations, until, begun)]
    coupling = _Coupling(circuit, errors.device, model, local, every, begun)
    for time, operation, action in _events(every, model):
        if action == "rz":  # diagonal like the coupling: they commute
            circuit.rz(operation.angle, local[operation.qubits[0]])
            continue
        coupling.turn(operation.qubits, time)
        where = [local[qubit] for qubit in operation.qubits]
        if action == "echo":
            _append_echo(circuit, where[0])
        elif action == "delay":
            channel = errors.wait(operation.qubits[0], operation.duration)
            if channel is not None:
                circuit.append(channel, where)
        else:
            getattr(circuit, operation.name)(*where)
    coupling.turn(tuple(qubits), until)


def append_schedule(
    circuit: QuantumCircuit,
    operations: Sequence[Operation],
    *,
    qubits: Sequence[int],
    until: float,
    unit: str = "s",
    tick: float = 1.0,
    step: int | None = None,
) -> None:
    """Append operations with explicit delays, as a device runs them: no error and no coupling.

    Every qubit is given all its time from 0 to ``until``, so that the schedule does not depend on
    whether a compiler runs operations as early or as late as possible. Delays are rounded such that
    their errors do not add up.

    Args:
        circuit: gets the operations; its qubit i is ``qubits[i]``.
        operations: in any order; none overlaps another on a qubit. Delays need not be among them.
        qubits: physical qubits of the circuit; those without operations get none.
        until: seconds.
        unit: Qiskit's name of the unit in which delays are given.
        tick: seconds of that unit.
        step: delays are multiples of so many ticks; ``None``: of any length, in seconds.
    """
    local = {physical: index for index, physical in enumerate(qubits)}
    clock = dict.fromkeys(sorted({q for o in operations for q in o.qubits}), 0.0)

    def wait(qubit: int, time: float) -> None:
        seconds = time - clock[qubit]
        ticks = seconds if step is None else step * round(seconds / tick / step)
        if ticks > (SHORTEST if step is None else 0):
            circuit.delay(ticks, local[qubit], unit=unit)
            clock[qubit] += ticks * tick

    for operation in sorted(operations, key=lambda o: o.centre):
        if operation.name == "delay":
            continue
        for qubit in operation.qubits:
            wait(qubit, operation.start)
        where = [local[qubit] for qubit in operation.qubits]
        angle = (operation.angle,) if operation.name == "rz" else ()
        getattr(circuit, operation.name)(*angle, *where)
        end = max(clock[qubit] for qubit in operation.qubits) + operation.duration
        clock.update(dict.fromkeys(operation.qubits, end))
    for qubit in clock:
        wait(qubit, until)


def _waits(operations: Sequence[Operation], until: float, begun: Sequence[int]) -> list[Operation]:
    """What is left of each qubit's time, from its first operation on."""
    at: dict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        for qubit in operation.qubits:
            at[qubit].append(operation)
    waits = []
    for qubit in sorted({*at, *begun}):
        mine = sorted(at[qubit], key=lambda o: (o.start, o.end))
        free = 0.0 if qubit in begun or not mine else mine[0].start
        for operation in (*mine, Operation("end", (qubit,), until)):
            if operation.start - free > SHORTEST:
                waits.append(Operation("delay", (qubit,), free, operation.start - free))
            free = max(free, operation.end)
    return waits


def _events(
    operations: Sequence[Operation], model: CrosstalkModel
) -> list[tuple[float, Operation, str]]:
    """(seconds, operation, what it does then), in order."""
    events = []
    for operation in operations:
        events.append((operation.centre, operation, operation.name))
        if model.echoes(operation.name):
            events += [(operation.centre, operation, "echo"), (operation.end, operation, "echo")]
    # Of what happens at once on a qubit: the gate before its echo, in the order given.
    return sorted(events, key=lambda event: event[0])


class _Coupling:
    """The ZZ coupling of every pair of qubits and their detuning, turned up to the present."""

    def __init__(
        self,
        circuit: QuantumCircuit,
        device: DeviceProfile,
        model: CrosstalkModel,
        local: dict[int, int],
        operations: Sequence[Operation],
        begun: Sequence[int],
    ) -> None:
        self.circuit, self.local = circuit, local
        self.begins = dict.fromkeys(begun, 0.0)
        for operation in operations:
            for qubit in operation.qubits:
                first = self.begins.get(qubit, math.inf)
                self.begins[qubit] = min(first, operation.start)
        self.rates: dict[tuple[int, ...], float] = {
            (q,): 2 * math.pi * device.qubits[q].detuning
            for q in self.begins
            if device.qubits[q].detuning
        }
        self.rates |= {
            (a, b): model.rate(device, a, b)
            for a in self.begins
            for b in device.neighbours[a]
            if a < b and b in self.begins
        }
        self.own: dict[tuple[int, ...], list[tuple[float, float]]] = {
            pair: [(o.start, o.end) for o in operations if set(o.qubits) == set(pair)]
            for pair in self.rates
            if len(pair) == 2
        }
        self.now = {where: max(self.begins[q] for q in where) for where in self.rates}

    def turn(self, qubits: Sequence[int], time: float) -> None:
        """Turn ``qubits``, and every pair that one of them belongs to, up to ``time``."""
        for where, rate in self.rates.items():
            before = self.now[where]
            if not set(where) & set(qubits) or time <= before:
                continue
            own = sum(
                max(0.0, min(end, time) - max(start, before))
                for start, end in self.own.get(where, ())
            )
            self.now[where] = time
            angle = rate * (time - before - own)
            if abs(angle) > 1e-15:
                local = [self.local[qubit] for qubit in where]
                (self.circuit.cp if local[1:] else self.circuit.p)(-angle, *local)


def _append_echo(circuit: QuantumCircuit, control: int) -> None:
    from qiskit.circuit.library import XGate

    circuit.append(XGate(label=ECHO), [control])
