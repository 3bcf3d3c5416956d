"""Scoring on fresh noise draws; an attack's own verdict does not count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.records import Bools
from qnad_art.benchmark.threats.victim import Images, Labels, derived, is_stochastic, predictions
from qnad_art.errors import InvalidInputError


@dataclass(frozen=True)
class Score:
    """What a classifier predicted for images in one or several draws of its noise.

    Args:
        y: class indices (images,).
        predicted: class indices (draws, images).
        confidence: probability of the true class (draws, images).
    """

    y: Labels
    predicted: Labels
    confidence: npt.NDArray[np.float32]

    @classmethod
    def of(cls, outputs: Iterable[Images], y: Labels) -> Score:
        """Score the logits (images, classes) of each draw, keeping only one draw at a time."""
        predicted, confidence = [], []
        for logits in outputs:
            likelihoods = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
            right = likelihoods[np.arange(len(y)), y] / likelihoods.sum(-1)
            predicted.append(logits.argmax(-1))
            confidence.append(right.astype(np.float32))
        return cls(y, np.stack(predicted), np.stack(confidence))

    @property
    def draws(self) -> int:
        """Number of draws; 1 for a deterministic classifier."""
        return len(self.predicted)

    @cached_property
    def correct(self) -> Bools:
        """(draws, images): whether the image is classified right."""
        return np.asarray(self.predicted == self.y)

    @cached_property
    def votes(self) -> Bools:
        """(images,): whether more draws give the true class than any other; a tie is wrong."""
        others = np.where(self.correct, -1, self.predicted)
        classes = np.unique(others[others >= 0])
        rival = [(others == c).sum(0) for c in classes] or [np.zeros(len(self.y), dtype=int)]
        return np.asarray(self.correct.sum(0) > np.max(rival, axis=0))

    @cached_property
    def every_draw(self) -> Bools:
        """(images,): whether the image is classified right in every draw."""
        return np.asarray(self.correct.all(axis=0))

    @property
    def accuracy(self) -> float:
        """Mean over images and draws."""
        return float(self.correct.mean())


def score(
    classifier: PyTorchClassifier,
    x: Images,
    y: Labels,
    *,
    draws: int,
    seed: int,
    batch_size: int = 250,
) -> Score:
    """Score images on ``draws`` fresh draws, or on one where predictions have no noise.

    Args:
        classifier: classifier whose sources of noise are reseeded.
        x, y: images (N, …) and class indices (N,).
        draws: number of draws, at least 1.
        seed: seed of the draws; the same seed gives the same score, whatever ran before.
        batch_size: images per pass.
    """
    if len(x) == 0 or len(x) != len(y) or draws < 1:
        raise InvalidInputError(
            f"{len(x)} images, {len(y)} labels and {draws} draws; give as many images as labels, "
            "and at least one of each."
        )
    if draws > 1 and not is_stochastic(classifier, x):
        draws = 1
    outputs = (
        predictions(classifier, x, seed=derived(seed, "draw", draw), batch_size=batch_size)
        for draw in range(draws)
    )
    return Score.of(outputs, np.asarray(y, dtype=np.int64))
