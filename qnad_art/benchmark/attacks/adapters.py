"""Adapters that give ART's attacks a common interface and comparable results."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from art.attacks.attack import EvasionAttack
from art.estimators import BaseEstimator
from art.utils import check_and_transform_label_format, to_categorical
from torch import Tensor, nn

from qnad_art.benchmark.threats.victim import TRIED, differ


class Probabilities(nn.Module):
    """The softmax of a network's logits, for attacks that want probabilities."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, classes)."""
        probabilities: Tensor = self.module(x).softmax(-1)
        return probabilities


class Adapter(EvasionAttack):  # type: ignore[misc]
    """An attack of ART with a common interface: images (N, …), and class indices or one-hot."""

    _estimator_requirements = (BaseEstimator,)

    def __init__(self, attack: Any) -> None:
        super().__init__(estimator=attack.estimator)
        self.attack = attack
        self.attack_params = attack.attack_params

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        return np.asarray(self.attack.generate(x, y, **kwargs))

    def _one_hot(self, y: Any) -> Any:
        return check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes)


class OneHot(Adapter):
    """For attacks that only take one-hot labels."""

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        return super().generate(x, None if y is None else self._one_hot(y), **kwargs)


class SeededStart(Adapter):
    """For attacks that draw their start from a fresh ``RandomState()``, which no seed controls.

    While the attack runs, such a generator is seeded from NumPy's global one, which ART's other
    attacks use.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        fresh = np.random.RandomState

        def seeded(seed: Any = None) -> np.random.RandomState:
            return fresh(np.random.randint(2**31) if seed is None else seed)  # noqa: NPY002

        with mock.patch.object(np.random, "RandomState", seeded):
            return super().generate(x, y, **kwargs)


def restarting(attack: Any) -> Any:
    """PGD with restarts as :class:`Restarts`, and PGD without restarts as it is."""
    return attack if attack.num_random_init < 2 else Restarts(attack)


class Restarts(Adapter):
    """PGD whose restarts only attack images that are still classified right.

    ART attacks every image in every restart. That changes no verdict, and costs as much for a weak
    network as for a strong one. For a network with noise, one draw decides nothing, so ART's own
    code attacks every image in every restart.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        restarts = self.attack.num_random_init
        if y is None or kwargs or len(x) == 0 or self._noisy(x):
            return super().generate(x, y, **kwargs)
        right = self._one_hot(y).argmax(1)
        made: np.ndarray = x.astype(np.float32)
        holding = np.arange(len(x))
        self.attack.set_params(num_random_init=1)
        try:
            for _ in range(restarts):
                made[holding] = self.attack.generate(x[holding], y[holding])
                outputs = self.estimator.predict(made[holding], batch_size=self.attack.batch_size)
                holding = holding[outputs.argmax(1) == right[holding]]
                if len(holding) == 0:
                    break
        finally:
            self.attack.set_params(num_random_init=restarts)
        return made

    def _noisy(self, x: np.ndarray) -> bool:
        """Whether two predictions in the next two draws differ; no seed is set."""
        first, second = (self.estimator.predict(x[:TRIED], batch_size=TRIED) for _ in range(2))
        return differ(first, second)


class LikeliestTarget(Adapter):
    """For targeted attacks, which get the likeliest wrong class as their target."""

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        outputs = self.estimator.predict(x, batch_size=self.attack.batch_size)
        right = outputs.argmax(1) if y is None else self._one_hot(y).argmax(1)
        outputs[np.arange(len(x)), right] = -np.inf
        targets = to_categorical(outputs.argmax(1), self.estimator.nb_classes)
        return super().generate(x, targets, **kwargs)


class HighestLoss(Adapter):
    """AutoPGD and similar attacks, which return the point of highest loss for every image.

    ART's versions skip images that are misclassified in one draw, and return a random point for
    images that are classified right in one draw at the end. With noise, a single draw decides
    neither. Here every image is attacked in every restart, as long as ART's algorithm runs.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        size = self.attack.batch_size
        if y is None:
            y = self.estimator.predict(x, batch_size=size).argmax(1)
        labels = self._one_hot(y)
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        found = [self._batch(x[part], labels[part], **kwargs) for part in parts]
        return np.concatenate(found) if found else x.copy()

    def _batch(self, x: np.ndarray, labels: np.ndarray, **kwargs: Any) -> np.ndarray:
        attack, restarts = self.attack, self.attack.nb_random_init
        # The attack built this classifier for itself, and only asks it for predictions to learn
        # which images are done: none of them is.
        attack.estimator.predict = lambda *_, **__: labels
        attack.nb_random_init = 1
        points: np.ndarray = x.astype(np.float32)
        loss = np.full(len(x), -np.inf)
        try:
            for _ in range(restarts):
                attack.generate(x, labels, **kwargs)
                better = attack.f_max > loss
                points[better], loss[better] = attack.x_max[better], attack.f_max[better]
        finally:
            del attack.estimator.predict
            attack.nb_random_init = restarts
        return points
