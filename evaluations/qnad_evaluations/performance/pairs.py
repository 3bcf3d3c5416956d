"""Timing by pairs: what is compared runs in turn, in one process, and each round is one ratio.

Other work on the machine, its clock and its temperature then weigh on both sides alike, and the
median over the rounds is not moved by the rounds that were disturbed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qnad_art.errors import InvalidInputError

LEAST_SECONDS = 0.02
"""A variant is called so often in each round that this much time passes."""
LEAST_ROUNDS = 3
"""Rounds that are always run, whatever they take."""


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles over ``rounds`` of the ratio to what is compared with."""

    median: float
    low: float
    high: float
    rounds: int


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of two series of the same rounds."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high, len(ratios))


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    budget: float = math.inf,
    least: float = LEAST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds a call of each variant, in each of ``rounds`` rounds after one not counted.

    Args:
        variants: what is compared, by name; in turn, and backwards in every second round.
        rounds: at least 2.
        budget: seconds after which no further round begins, once there are 3.
        least: seconds for which a variant is called in a round.
        clock: the time in seconds.
    """
    if rounds < 2:
        raise InvalidInputError(f"rounds is {rounds}; it must be at least 2.")

    def timed(run: Callable[[], object], calls: int) -> float:
        start = clock()
        for _ in range(calls):
            run()
        _settle()
        return (clock() - start) / calls

    calls = {}
    for name, run in variants.items():
        timed(run, 1)
        calls[name] = max(1, math.ceil(least / max(timed(run, 1), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    begun = clock()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and clock() - begun > budget:
            break
        for name in list(variants)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(timed(variants[name], calls[name]))
    return seconds


def _settle() -> None:
    """Wait for what was sent to a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
