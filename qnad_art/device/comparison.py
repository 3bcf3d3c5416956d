"""What changed from one calibration of a device to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.errors import DeviceError


@dataclass(frozen=True)
class Change:
    """How one quantity changed.

    Args:
        quantity: with its unit.
        before, after: medians over the qubits or edges that have it in both profiles.
        relative: median of the absolute relative changes; ``None`` if there is nothing to compare.
        largest: the largest absolute relative change.
        where: the qubit or edge of the largest change.
    """

    quantity: str
    before: float | None
    after: float | None
    relative: float | None
    largest: float | None
    where: str


_QUBITS: dict[str, Callable[[Qubit], float | None]] = {
    "T1 (s)": lambda q: q.t1,
    "T2 (s)": lambda q: q.t2,
    "frequency (Hz)": lambda q: q.frequency,
    "P(1|0)": lambda q: q.p1_given_0,
    "P(0|1)": lambda q: q.p0_given_1,
    "sx error": lambda q: q.sx_error,
    "x error": lambda q: q.x_error,
}
_EDGES: dict[str, Callable[[Edge], float | None]] = {
    "two-qubit error": lambda e: e.error,
    "two-qubit duration (s)": lambda e: e.duration,
    "ZZ coupling (Hz)": lambda e: e.zz_hz,
}


def compared(first: DeviceProfile, second: DeviceProfile) -> list[Change]:
    """Every quantity of two profiles of one device, or of devices with as many qubits.

    Raises:
        DeviceError: they have different numbers of qubits.
    """
    if len(first.qubits) != len(second.qubits):
        raise DeviceError(
            f"{first.name} has {len(first.qubits)} qubits and {second.name} {len(second.qubits)}: "
            "there is nothing to compare one by one."
        )
    qubits = zip(map(str, range(len(first.qubits))), first.qubits, second.qubits, strict=True)
    rows = [(f"qubit {index}", a, b) for index, a, b in qubits]
    edges = [
        (f"edge {a.control}–{a.target}", a, second.edge_of[a.control, a.target])
        for a in first.edges
        if (a.control, a.target) in second.edge_of
    ]
    found = [
        _change(name, ((where, get(a), get(b)) for where, a, b in rows))
        for name, get in _QUBITS.items()
    ]
    return found + [
        _change(name, ((where, get(a), get(b)) for where, a, b in edges))
        for name, get in _EDGES.items()
    ]


def gone(first: DeviceProfile, second: DeviceProfile) -> list[str]:
    """Edges that only one of the profiles has, in words."""
    return [
        f"edge {control}–{target} is only in {mine.name}"
        for mine, other in ((first, second), (second, first))
        for control, target in sorted(mine.edge_of.keys() - other.edge_of.keys())
    ]


def _change(quantity: str, values: Iterable[tuple[str, float | None, float | None]]) -> Change:
    import numpy as np

    both = [(where, a, b) for where, a, b in values if a is not None and b is not None]
    if not both:
        return Change(quantity, None, None, None, None, "")
    before, after = (float(np.median([entry[i] for entry in both])) for i in (1, 2))
    changes = [(abs(b / a - 1), where) for where, a, b in both if a]
    if not changes:
        return Change(quantity, before, after, None, None, "")
    largest, where = max(changes)
    middle = float(np.median([change for change, _ in changes]))
    return Change(quantity, before, after, middle, largest, where)
