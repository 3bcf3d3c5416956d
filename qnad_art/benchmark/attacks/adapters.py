"""Attacks of ART whose interface or result differs from the others', made alike."""

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
    """An attack of ART behind the common interface: images (N, …) and class indices or one-hot."""

    _estimator_requirements = (BaseEstimator,)

    def __init__(self, attack: Any) -> None:
        super().__init__(estimator=attack.estimator)
        self.attack = attack
        self.attack_params = attack.attack_params

    def _one_hot(self, y: Any) -> Any:
        return check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes)


class OneHot(Adapter):
    """For attacks that take labels as rows only."""

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        labels = None if y is None else self._one_hot(y)
        found: np.ndarray = self.attack.generate(x, labels, **kwargs)
        return found


class SeededStart(Adapter):
    """For attacks that draw their start from a fresh ``RandomState()``, which no seed reaches.

    Meanwhile such a generator is seeded from NumPy's global one, as ART's other attacks draw.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        fresh = np.random.RandomState

        def seeded(seed: Any = None) -> np.random.RandomState:
            return fresh(np.random.randint(2**31) if seed is None else seed)  # noqa: NPY002

        with mock.patch.object(np.random, "RandomState", seeded):
            found: np.ndarray = self.attack.generate(x, y, **kwargs)
        return found


def restarting(attack: Any) -> Any:
    """PGD with restarts as :class:`Restarts`, without as it is."""
    return attack if attack.num_random_init < 2 else Restarts(attack)


class Restarts(Adapter):
    """PGD whose restarts go on with those images that are still classified right.

    ART attacks every image in every restart, which costs a weak network's attacker as much as a
    strong one's and changes no verdict. Of a network with noise one draw settles nothing: there
    every image is attacked every time, by ART's own code.
    """

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        restarts = self.attack.num_random_init
        if y is None or kwargs or len(x) == 0 or self._noisy(x):
            found: np.ndarray = self.attack.generate(x, y, **kwargs)
            return found
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
        """Whether two predictions differ; they are the next two draws, no seed begins anew."""
        first, second = (self.estimator.predict(x[:TRIED], batch_size=TRIED) for _ in range(2))
        return differ(first, second)


class LikeliestTarget(Adapter):
    """For targeted attacks: the target is the likeliest of the wrong classes."""

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        outputs = self.estimator.predict(x, batch_size=self.attack.batch_size)
        right = outputs.argmax(1) if y is None else self._one_hot(y).argmax(1)
        outputs[np.arange(len(x)), right] = -np.inf
        targets = to_categorical(outputs.argmax(1), self.estimator.nb_classes)
        found: np.ndarray = self.attack.generate(x, targets, **kwargs)
        return found


class HighestLoss(Adapter):
    """AutoPGD and its kin, returning for every image the point of highest loss that they met.

    ART's own leave alone what is misclassified in one draw, and give a random point for what is
    classified right in one draw at the end: of a network with noise neither means anything. Here
    every image is attacked in every restart, as long as ART's algorithm goes on.
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
        # The classifier is one that the attack built for itself: it asks for predictions only to
        # learn which images are done. None is.
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
