"""Has anything become slower? New ratios against recorded ones, beyond the noise of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qnad_art.errors import InvalidInputError
from qnad_evaluations.performance.pairs import Ratio
from qnad_evaluations.performance.results import Recorded, Result

RESOLUTION = 0.02
"""Relative differences up to this are noise, however small the measured spread."""


@dataclass(frozen=True)
class Comparison:
    """A ratio now and when it was recorded; ``noise`` is what their medians may differ by."""

    now: Result
    recorded: Result
    noise: float

    @property
    def change(self) -> float:
        """Of the median, in units of ratio."""
        return _ratio(self.now).median - _ratio(self.recorded).median

    @property
    def slower(self) -> bool:
        """Beyond the noise."""
        return self.change > self.noise


def compare(results: Iterable[Result], recorded: Mapping[str, Recorded]) -> list[Comparison]:
    """Every ratio that was recorded too.

    The noise is the root of the sum of squares of both interquartile ranges: 1.9 standard
    deviations of a single round, about 3.4 of the difference of two medians of ten rounds.

    Raises:
        InvalidInputError: nothing that was measured is among what was recorded.
    """
    there = {row.key: row for part in recorded.values() for row in part.results}
    found = [
        Comparison(result, there[result.key], _noise(result, there[result.key]))
        for result in results
        if result.ratio is not None and result.key in there and there[result.key].ratio is not None
    ]
    if not found:
        raise InvalidInputError(
            "Nothing that was measured now has a recorded ratio to be compared with: choose cases "
            "that are in the recorded file."
        )
    return found


def _noise(now: Result, recorded: Result) -> float:
    spreads = [r.high - r.low for r in (_ratio(now), _ratio(recorded))]
    return max(math.hypot(*spreads), RESOLUTION * _ratio(recorded).median)


def _ratio(result: Result) -> Ratio:
    assert result.ratio is not None
    return result.ratio
