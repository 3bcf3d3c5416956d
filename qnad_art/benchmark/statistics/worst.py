"""Accuracy against an attacker with several attacks: each image under the one that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qnad_art.benchmark.records import Bools, Interval, Result, Rung
from qnad_art.benchmark.statistics.intervals import accuracy_interval, paired_difference, scored

Chosen = npt.NDArray[np.intp]

ONE_TRY: tuple[Rung, ...] = ("transfer", "white-box", "adaptive", "surrogate", "black-box")
"""Rungs of an attacker who submits an example once and does not know the draw that then counts.

The others have columns of their own: how much they leave is a question of how often one may ask.
"""


def at_worst(results: Sequence[Result]) -> Bools:
    """(draws, images): what holds against all attacks together, as AutoAttack counts.

    An image is right where it is right under each attack. Under noise, no attack can be chosen by
    the draw that then counts: in each draw every image is under the attack that fools the other
    draws most often, the strongest of equals. That is not always the best of them, so with noise
    the figure is the most that the attacks leave. Never above the lowest of the results.

    Args:
        results: of one defence on the same images, one for each attack and rung.
    """
    return _lowest(results, _by_other_draws)


def accuracy_at_worst(seeds: Sequence[Sequence[Result]]) -> Interval:
    """Accuracy of :func:`at_worst` with its 95 % interval.

    With noise it reaches down to that of the attacks that fooled each image most in the very draws
    that count, which leave less than the best do.

    Args:
        seeds: results of one seed or of several, each then counting as a draw.
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
    """Accuracy of :func:`at_worst` of one defence less that of another, paired by image.

    With an interval that allows for what :func:`accuracy_at_worst` does, whose argument each is.
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
    """One draw of each seed: what seeds have of their own outweighs the noise of a draw."""
    return np.concatenate([at_worst(results)[:1] for results in seeds])


def _lowest(results: Sequence[Result], choose: Callable[[Bools], Chosen]) -> Bools:
    outcomes = sorted(map(scored, results), key=lambda each: float(each.mean()))
    noisy = [outcome for outcome in outcomes if len(outcome) > 1]
    found = list(outcomes)
    # Attacks that were scored on many draws are not to be judged on as few as others were.
    for draws in {len(outcome) for outcome in noisy}:
        alike = np.stack([outcome[:draws] for outcome in noisy if len(outcome) >= draws])
        found.append(np.take_along_axis(alike, choose(alike)[None], 0)[0])
    if not noisy and not any(result.provenance.shots for result in results):
        found.append(np.all(outcomes, axis=0))  # no noise: nothing is left to chance
    return min(found, key=lambda each: float(each.mean()))


def _by_other_draws(correct: Bools) -> Chosen:
    """Of outcomes (attacks, draws, images), the attack for every draw and image."""
    return np.asarray((correct.sum(1, keepdims=True) - correct).argmin(0))


def _by_all_draws(correct: Bools) -> Chosen:
    chosen = correct.sum(1).argmin(0)
    return np.broadcast_to(chosen, correct.shape[1:])


def _same(one: Bools, other: Bools) -> bool:
    return one.shape == other.shape and bool((one == other).all())
