"""Confidence intervals and tests for accuracies over images and noise draws.

The two-level bootstrap resamples images, each with all its draws, which carries the variation
between images and that of independent draws; what all images of a draw have in common (noise on
weights, say) is resampled on top, draw by draw. Its share is shrunk by what independent draws
alone would show (Davison & Hinkley 1997, section 3.8), else independent noise would count twice.
Intervals are BCa (Efron 1987), 95 % unless said otherwise. Those of differences are widened to
what few images that differ can tell (:mod:`~qnad_art.benchmark.statistics.paired`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qnad_art.benchmark.records import Bools, Interval, Record, Result
from qnad_art.benchmark.statistics.paired import Ends, score_ends, sign_ends
from qnad_art.errors import InvalidInputError

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
PERMUTATIONS = 99_999
ROUNDING = 1e-12
"""What sums of accuracies differ by where nothing does."""
NEAR_ZERO = 0.05
"""Below this plain accuracy a relative improvement means nothing."""


def wilson(correct: int, images: int, *, level: float = LEVEL) -> Interval:
    """Wilson's interval of a proportion (Wilson 1927)."""
    from scipy.stats import binomtest

    if not 0 <= correct <= images or images < 1:
        raise InvalidInputError(f"{correct} of {images} is no proportion.")
    found = binomtest(correct, images).proportion_ci(level, method="wilson")
    return Interval(value=correct / images, low=float(found.low), high=float(found.high))


def accuracy_interval(correct: Bools, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean accuracy over draws and images.

    Args:
        correct: (draws, images). One draw has Wilson's interval, several the two-level bootstrap.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    correct = _checked(correct)
    images = correct.mean(0)
    if len(correct) == 1 or images.min() == images.max():
        # Images that are all alike leave a bootstrap nothing to resample.
        rate = wilson(round(float(images.sum())), images.size)
        return Interval(value=float(images.mean()), low=rate.low, high=rate.high)
    rng = np.random.default_rng(seed)
    means = _resampled(images, rng, resamples) + _common(correct, rng, resamples)
    low, high = _bca(images, means)
    return Interval(value=float(images.mean()), low=max(low, 0.0), high=min(high, 1.0))


def paired_difference(
    first: Bools,
    second: Bools,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Mean accuracy of ``first`` less that of ``second`` on the same images.

    Args:
        first, second: (draws, images), each with draws of its own.
        seed, resamples: of the paired bootstrap over images, draws within.
        level: of the interval.
    """
    return combined_difference(
        [(1.0, first), (-1.0, second)], seed=seed, resamples=resamples, level=level
    )


def combined_difference(
    parts: Sequence[tuple[float, Bools]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """A weighted sum of mean accuracies on the same images, such as a difference of gains.

    The interval is the hull of two that hold where few images differ, by the score and by the exact
    test (:mod:`~.statistics.paired`), and of the bootstrap where a part has several draws.
    Zero is left out only where the exact test of signs leaves it out (McNemar's for single draws).

    Args:
        parts: weight and outcomes (draws, images) of each, draws of its own.
        seed, resamples, level: as for :func:`paired_difference`, of which it is the general case.
    """
    checked = [(weight, _checked(outcomes)) for weight, outcomes in parts]
    for _, outcomes in checked[1:]:
        _check_pair(checked[0][1], outcomes)
    values = np.asarray(sum(weight * outcomes.mean(0) for weight, outcomes in checked))
    bounds = sum(min(w, 0.0) for w, _ in checked), sum(max(w, 0.0) for w, _ in checked)
    alike = np.ptp(values) < ROUNDING
    reach = float(np.abs(values).max())
    ends = [
        score_ends(values, bounds if alike else (-reach, reach), level),
        sign_ends(values, level),
    ]
    if not alike and any(len(outcomes) > 1 for _, outcomes in checked):
        ends.append(_bootstrapped(checked, values, seed, resamples, level))
    lows, highs = zip(*ends, strict=True)
    return Interval(
        value=float(values.mean()),
        low=max(min(lows), bounds[0]),
        high=min(max(highs), bounds[1]),
    )


def higher_by_chance(first: Bools, second: Bools, *, seed: int = 0) -> float:
    """p-value of ``first`` having the higher mean accuracy on the same images by chance alone.

    Sign-flip permutation test over the images that differ (for single draws: McNemar's test).

    Args:
        first, second: (draws, images), each with draws of its own.
        seed: of the permutations.
    """
    differences = _per_image(_checked(first), _checked(second))
    total = float(differences.sum())
    if total <= 0:
        return 1.0
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(PERMUTATIONS, sizes.size))
    flipped = (2 * positive - counts) @ sizes
    as_high = int((flipped >= total * (1 - 1e-9)).sum())
    return (as_high + 1) / (PERMUTATIONS + 1)


class RelativeImprovement(Record):
    """(defended - plain) / plain, never without both accuracies and their difference.

    Args:
        improvement: ``None`` where the plain accuracy is zero.
        meaningful: whether the plain accuracy is far enough from zero for a ratio.
    """

    defended: float
    plain: float
    difference: float
    improvement: float | None
    meaningful: bool


def relative_improvement(defended: float, plain: float) -> RelativeImprovement:
    """Of two accuracies in [0, 1], as the paper's Table I states it."""
    for accuracy in (defended, plain):
        if not 0 <= accuracy <= 1:
            raise InvalidInputError(f"{accuracy} is no accuracy; give a number from 0 to 1.")
    return RelativeImprovement(
        defended=defended,
        plain=plain,
        difference=defended - plain,
        improvement=(defended - plain) / plain if plain > 0 else None,
        meaningful=plain >= NEAR_ZERO,
    )


def _checked(correct: Bools) -> Bools:
    correct = np.asarray(correct, dtype=bool)
    if correct.ndim != 2 or correct.size == 0:
        raise InvalidInputError(
            f"Outcomes of shape {correct.shape}; expected (draws, images), at least one of each."
        )
    return correct


def _per_image(first: Bools, second: Bools) -> Floats:
    _check_pair(first, second)
    return np.asarray(first.mean(0) - second.mean(0))


def _check_pair(first: Bools, second: Bools) -> None:
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"{first.shape[1]} images against {second.shape[1]}: pairs need the same images."
        )


def _resampled(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Means (resamples,) of ``values`` (images,) drawn with replacement.

    Few values are distinct, and how often each is drawn is multinomial.
    """
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(values.size, counts / values.size, size=resamples)
    return np.asarray(drawn @ distinct / values.size)


def _common(correct: Bools, rng: np.random.Generator, resamples: int) -> Floats:
    """Mean (resamples,) of what all images of a draw have in common, as it may be; 0 without that.

    Few draws resampled vary less than the mean of so few does: it follows Student's t, with which
    the 95 % interval of 5 draws that differ by 14 points misses 6 % of the time instead of 11, and
    of 3 draws 5 instead of 22. Of several images, since one alone leaves nothing to compare (and
    never comes here).
    """
    draws, images = correct.shape
    if draws == 1:
        return np.zeros(resamples)
    effects = correct.mean(1) - correct.mean()
    residuals = correct - correct.mean(0) - effects[:, None]
    within = float(np.square(residuals).sum()) / ((draws - 1) * (images - 1))
    between = images * float(effects.var(ddof=1))
    if between <= within:
        return np.zeros(resamples)
    spread = np.sqrt((between - within) / images / draws)
    return np.asarray(spread * rng.standard_t(draws - 1, resamples))


def _bootstrapped(
    parts: Sequence[tuple[float, Bools]], values: Floats, seed: int, resamples: int, level: float
) -> Ends:
    """Two-level bootstrap of the mean of ``values`` (images,), the weighted sum of ``parts``."""
    rng = np.random.default_rng(seed)
    means = _resampled(values, rng, resamples)
    for weight, outcomes in parts:
        means += weight * _common(outcomes, rng, resamples)
    return _bca(values, means, level)


def _bca(values: Floats, means: Floats, level: float = LEVEL) -> Ends:
    """Bias-corrected and accelerated interval of the mean of ``values`` from resampled means."""
    from scipy.special import ndtr, ndtri

    value = float(values.mean())
    below = ((means < value).mean() + (means <= value).mean()) / 2
    bias = ndtri(np.clip(below, 0.001, 0.999))
    deviations = values - value
    skew = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    tails = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, ndtr(bias + tails / (1 - skew * tails)))
    return float(low), float(high)


def scored(result: Result) -> Bools:
    """(draws, images): the outcomes whose mean is the headline accuracy of the cell.

    Under the rung ``persistent`` an image counts if it holds in every draw.
    """
    correct = result.correct.unpack()
    if result.cell.rung != "persistent":
        return correct
    held: Bools = np.all(correct, axis=0)[None]
    return held
