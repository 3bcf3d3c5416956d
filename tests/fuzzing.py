"""Seeded damage: bytes as disks and networks break them, plain data as an attacker writes it."""

import copy
import random
import re
from collections.abc import Iterator
from typing import Any

HUGE = (b"99999999999999999999", b"-1", b"18446744073709551615", b"4294967296")
"""In place of numbers in a header: shapes and offsets that no file can hold."""


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` damaged copies, all different from ``data``: cut, flipped, overwritten, spliced."""
    rng = random.Random(seed)
    kinds = (_cut, _flipped, _overwritten, _removed, _inserted, _repeated, _oversize)
    made = 0
    while made < count:
        found = rng.choice(kinds)(data, rng)
        if found != data:
            made += 1
            yield found


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 8))):
        found[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(found)


def _overwritten(data: bytes, rng: random.Random) -> bytes:
    at, length = _place(data, rng), rng.choice((1, 8, 64))
    filling = rng.choice((b"\x00" * length, b"\xff" * length, rng.randbytes(length)))
    return data[:at] + filling + data[at + length :]


def _removed(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 4, 32)) :]


def _inserted(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 4, 32))) + data[at:]


def _repeated(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    part = data[at : at + rng.choice((1, 8, 64))]
    return data[:at] + part * rng.choice((2, 50)) + data[at:]


def _oversize(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"\d+", data[:4096])) or list(re.finditer(rb"^", data))
    number = rng.choice(numbers)
    return data[: number.start()] + rng.choice(HUGE) + data[number.end() :]


def _place(data: bytes, rng: random.Random) -> int:
    """Half of the time near the beginning, where headers are."""
    return rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data))


def nested(depth: int) -> Any:
    """A list in a list in a list …"""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, -1, 0.5, 1e308, 2**63, 10**40, "", "x", "\x00", "é" * 5000),
    *(
        "../../../etc/passwd",
        "/dev/zero",
        "__class__",
        "{0.__class__}",
        "!!python/name:os",
    ),
    *([], {}, [[]], {"": None}, [0] * 3000, nested(200), {"__proto__": {}}),
)


def altered(value: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """``count`` copies of plain data, in each one part changed for another type, range or path."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _alter(copy.deepcopy(value), rng)


def _alter(value: Any, rng: random.Random) -> Any:
    # Down to a random part, the shallow ones as likely as all the many deep ones.
    if isinstance(value, (dict, list)) and value and rng.random() < 0.75:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.08:
            del value[key]
        elif kind < 0.12 and isinstance(value, dict):
            value[str(rng.choice(_HOSTILE))] = value[key]
        elif kind < 0.15 and isinstance(value, list):
            value += value[:3]
        else:
            value[key] = _alter(value[key], rng)
        return value
    return copy.deepcopy(rng.choice(_HOSTILE))
