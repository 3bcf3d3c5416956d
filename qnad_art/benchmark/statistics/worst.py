"""Accuracy at worst: each image under the attack that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qnad_art.benchmark.records import Bools, Interval, Result, Rung
from qnad_art.benchmark.statistics.intervals import accuracy_interval, paired_difference, scored

Chosen = npt.NDArray[np.intp]

ONE_TRY: tuple[Rung, ...] = ("transfer", "white-box", "adaptive", "surrogate", "black-box")
"""Rungs of an attacker who submits an example once and does not know the draw that is scored.

The other rungs are reported separately, because their accuracy depends on how often the attacker
may submit an example.
"""


def at_worst(results: Sequence[Result]) -> Bools:
    """(draws, images): the images that withstand all attacks together, as AutoAttack counts.

    Without noise, an image counts as right if it is right under each attack. With noise, the choice
    of the attack must not depend on the draw that is scored: in each draw, an image is under the
    attack that fools the other draws most often (the strongest of equals). This attack is not
    always the best one, so the accuracy with noise is an upper bound. It is never above the lowest
    accuracy of the results.

    Args:
        results: results of one defence on the same images, one for each attack and rung.
    """
    return _lowest(results, _by_other_draws)


def accuracy_at_worst(seeds: Sequence[Sequence[Result]]) -> Interval:
    """Accuracy of :func:`at_worst` with its 95 % interval.

    With noise, the interval includes that of the attacks that fool each image most often in the
    draws that are scored, which is a lower bound.

    Args:
        seeds: results of each seed; with several seeds, each counts as one draw.
    """
    if len(seeds) > 1:
        return accuracy_interval(_of_each(seeds))
    (results,) = seeds
    outcomes = at_worst(results)
    alone = [result.accuracy for result in results if _same(scored(result), outcomes)]
    found = alone[0] if alone else accuracy_interval(outcomes)
    harshest = accuracy_interval(_lowest(results, _by_all_draws))
    return found.model_copy(update={"low": min(found.low, harshest.low)})


def gain_at_worst(ours: Sequence[Sequence[Result]], theirs: Sequence[Sequence[Result]]) -> Interval:
    """Accuracy of :func:`at_worst` of one defence minus that of another, paired by image.

    The interval is widened as in :func:`accuracy_at_worst`, which describes both arguments.
    """
    if len(ours) > 1 or len(theirs) > 1:
        return paired_difference(_of_each(ours), _of_each(theirs))
    rules = (_by_other_draws, _by_all_draws)
    first, harsher = (_lowest(ours[0], rule) for rule in rules)
    second, harsher_second = (_lowest(theirs[0], rule) for rule in rules)
    found = paired_difference(first, second)
    low = min(found.low, paired_difference(harsher, second).low)
    high = max(found.high, paired_difference(first, harsher_second).high)
    return found.model_copy(update={"low": low, "high": high})


def _of_each(seeds: Sequence[Sequence[Result]]) -> Bools:
    """One draw of each seed, since seeds differ by more than the noise of a draw."""
    return np.concatenate([at_worst(results)[:1] for results in seeds])


def _lowest(results: Sequence[Result], choose: Callable[[Bools], Chosen]) -> Bools:
    outcomes = sorted(map(scored, results), key=lambda each: float(each.mean()))
    noisy = [outcome for outcome in outcomes if len(outcome) > 1]
    found = list(outcomes)
    # Attacks that were scored on many draws are not cut down to the draws of others.
    for draws in {len(outcome) for outcome in noisy}:
        alike = np.stack([outcome[:draws] for outcome in noisy if len(outcome) >= draws])
        found.append(np.take_along_axis(alike, choose(alike)[None], 0)[0])
    if not noisy and not any(result.provenance.shots for result in results):
        found.append(np.all(outcomes, axis=0))  # without noise, every outcome is certain
    return min(found, key=lambda each: float(each.mean()))


def _by_other_draws(correct: Bools) -> Chosen:
    """The attack for each draw and image, from outcomes (attacks, draws, images)."""
    return np.asarray((correct.sum(1, keepdims=True) - correct).argmin(0))


def _by_all_draws(correct: Bools) -> Chosen:
    chosen = correct.sum(1).argmin(0)
    return np.broadcast_to(chosen, correct.shape[1:])


def _same(one: Bools, other: Bools) -> bool:
    return one.shape == other.shape and bool((one == other).all())
