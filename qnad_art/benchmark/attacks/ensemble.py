"""AutoAttack for networks with noise: ART's attacks, chosen image by image on fresh draws.

ART's own ``AutoAttack`` imports a package that it does not install. It also keeps an attack's
result only for images that are misclassified in one draw, which means little with noise.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
from art.utils import check_and_transform_label_format, projection

from qnad_art.benchmark.attacks.adapters import HighestLoss
from qnad_art.benchmark.attacks.catalogue import CE, DLR
from qnad_art.benchmark.attacks.foreign import DeclaredSettings
from qnad_art.benchmark.threats.victim import averaged
from qnad_art.network.module import AveragedDraws


class _Ensemble(DeclaredSettings):
    """Attacks that run one after the other on the images that hold.

    An image holds until it is misclassified in all of some fresh draws. The result is the example
    that is classified right least often.

    Args:
        estimator: classifier that returns logits.
        norm: ``"inf"`` or 2.
        eps: budget.
        max_iter: steps of APGD and of DeepFool.
        nb_random_init: restarts of APGD.
        draws: predictions that judge an example (two are enough for a network without noise).
        batch_size: images per pass.
    """

    norm: Literal["inf", 2] = "inf"
    eps: float = 0.3
    max_iter: int = 100
    nb_random_init: int = 1
    draws: int = 10

    def __init__(self, estimator: Any, **settings: Any) -> None:
        if settings.get("norm") == np.inf:
            settings["norm"] = "inf"
        super().__init__(estimator, **settings)
        self.attacks = self._attacks()

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial examples of ``x`` (N, …), untargeted."""
        x = x.astype(np.float32)
        if y is None:
            y = self.estimator.predict(x, batch_size=self.batch_size)
        labels = check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes)
        outputs = self._outputs(x)
        best, (shares, margins) = x.copy(), _judged(outputs, labels)
        for attack in self._attacks_for(outputs):
            left = np.flatnonzero(shares > 0)
            if not len(left):
                break
            made = self._within(attack.generate(x[left], labels[left]), x[left])
            share, margin = _judged(self._outputs(made), labels[left])
            better = (share < shares[left]) | ((share == shares[left]) & (margin < margins[left]))
            won = left[better]
            best[won], shares[won], margins[won] = made[better], share[better], margin[better]
        return best

    @abstractmethod
    def _attacks(self) -> list[EvasionAttack]: ...

    def _auto_pgd(self, estimator: Any) -> list[EvasionAttack]:
        losses = [CE, DLR] if estimator.nb_classes > 2 else [CE]
        return [
            HighestLoss(
                AutoProjectedGradientDescent(
                    estimator,
                    norm=self.norm,
                    eps=self.eps,
                    eps_step=2 * self.eps,
                    max_iter=self.max_iter,
                    nb_random_init=self.nb_random_init,
                    batch_size=self.batch_size,
                    loss_type=loss,
                    verbose=False,
                )
            )
            for loss in losses
        ]

    def _attacks_for(self, outputs: list[np.ndarray]) -> list[EvasionAttack]:
        """The attacks on a network that returned these :meth:`_outputs`."""
        return self.attacks

    def _outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """Logits (N, classes) in each of the draws, or in two draws if the network has no noise."""
        outputs: list[np.ndarray] = []
        while len(outputs) < self.draws and not _equal(outputs):
            outputs.append(self.estimator.predict(x, batch_size=self.batch_size))
        return outputs

    def _within(self, made: np.ndarray, x: np.ndarray) -> np.ndarray:
        made = x + projection(made - x, self.eps, self.norm)
        if self.estimator.clip_values is not None:
            made = np.clip(made, *self.estimator.clip_values)
        return np.asarray(made, dtype=np.float32)


class AutoAttack(_Ensemble):
    """APGD-CE, APGD-DLR, DeepFool and Square (Croce & Hein, ICML 2020), as in ART's ``AutoAttack``.

    DeepFool's examples are projected onto the ball of ε. ``max_queries`` is the number of steps of
    Square; the other settings are those of all ensembles.
    """

    max_queries: int = 5000

    def _attacks(self) -> list[EvasionAttack]:
        deepfool = DeepFool(
            self.estimator,
            max_iter=self.max_iter,
            epsilon=1e-3,
            nb_grads=min(10, self.estimator.nb_classes),
            batch_size=self.batch_size,
            verbose=False,
        )
        square = SquareAttack(
            self.estimator,
            norm=self.norm,
            eps=self.eps,
            max_iter=self.max_queries,
            batch_size=self.batch_size,
            verbose=False,
        )
        return [*self._auto_pgd(self.estimator), deepfool, square]


class AutoAttackRand(_Ensemble):
    """APGD-CE and APGD-DLR with expectation over transformation: AutoAttack's version ``rand``.

    ``eot_iter`` is the number of draws over which every pass is averaged. A classifier that already
    averages (:class:`~qnad_art.network.module.AveragedDraws`) is used as it is. The other settings
    are those of all ensembles.
    """

    eot_iter: int = 20

    def _attacks(self) -> list[EvasionAttack]:
        already = isinstance(self.estimator.model, AveragedDraws)
        return self._auto_pgd(
            self.estimator if already else averaged(self.estimator, self.eot_iter)
        )

    def _attacks_for(self, outputs: list[np.ndarray]) -> list[EvasionAttack]:
        # If all draws are equal, one of them gives their mean at a fraction of the cost.
        return self._auto_pgd(self.estimator) if _equal(outputs) else self.attacks


def _equal(outputs: list[np.ndarray]) -> bool:
    """Whether two draws were made and are equal, which means that the network has no noise."""
    return len(outputs) > 1 and np.array_equal(outputs[0], outputs[1])


def _judged(outputs: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of draws in which each image is classified right, and its mean margin."""
    logits = np.stack(outputs)
    right = labels.argmax(1)
    others = np.where(labels > 0, -np.inf, logits).max(2)
    margins = logits[:, np.arange(len(right)), right] - others
    shares: np.ndarray = (logits.argmax(2) == right).mean(0)
    return shares, margins.mean(0)
