"""Accuracy against an attacker with several attacks: each image under the one that breaks it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qnad_art.benchmark.comparison import scored
from qnad_art.benchmark.records import Bools, Result


def at_worst(results: Sequence[Result]) -> Bools:
    """(draws, images): what holds against all attacks together, as AutoAttack counts.

    An image is right where it is right under each attack. Under noise, no attack can be chosen by
    the draw that then counts: in each draw every image is under the attack that fools the other
    draws most often, the strongest of equals. Never above the lowest of the results.

    Args:
        results: of one defence on the same images, one for each attack and rung.
    """
    outcomes = sorted(map(scored, results), key=lambda each: float(each.mean()))
    noisy = [each for each in outcomes if len(each) > 1]
    # A single row is that of a network without noise, or of an attacker who asks until one draw
    # fails, to whom an image is lost in every draw.
    together = np.array([[True]]) if not noisy else _fooled_most(noisy)
    for each in outcomes:
        together = together & each if len(each) == 1 else together
    return min((together, *outcomes), key=lambda each: float(each.mean()))


def _fooled_most(outcomes: Sequence[Bools]) -> Bools:
    """Of several draws, the strongest attack first."""
    draws = min(map(len, outcomes))
    correct = np.stack([each[:draws] for each in outcomes])  # (attacks, draws, images)
    elsewhere = correct.sum(1, keepdims=True) - correct
    chosen = elsewhere.argmin(0)[None]
    return np.asarray(np.take_along_axis(correct, chosen, 0)[0])
