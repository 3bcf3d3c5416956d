"""AutoAttack for networks with noise: ART's attacks, chosen image by image on fresh draws.

ART's own ``AutoAttack`` imports a package that it does not install. It also keeps an attack's
result only for images that are misclassified in one draw, which means little with noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
from art.estimators import BaseEstimator
from art.estimators.classification import ClassifierMixin
from art.utils import check_and_transform_label_format, projection

from qnad_art.benchmark.attacks.adapters import HighestLoss
from qnad_art.benchmark.attacks.catalogue import CE, DLR
from qnad_art.benchmark.threats.victim import averaged
from qnad_art.network.module import AveragedDraws


class AutoAttack(EvasionAttack):  # type: ignore[misc]
    """APGD-CE, APGD-DLR, DeepFool and Square, one after the other on the images that hold.

    Croce & Hein (ICML 2020), with the attacks of ART's ``AutoAttack``. An image holds until it is
    misclassified in all of some fresh draws. The result is the example that is classified right
    least often. DeepFool's examples are projected onto the ball of ε.

    Args:
        estimator: classifier that returns logits.
        norm: ``"inf"`` or 2.
        eps: budget.
        max_iter: steps of APGD and of DeepFool.
        max_queries: steps of Square.
        nb_random_init: restarts of APGD.
        draws: predictions that judge an example (two are enough for a network without noise).
        batch_size: images per pass.
    """

    attack_params = [  # noqa: RUF012
        *EvasionAttack.attack_params,
        *("norm", "eps", "max_iter", "max_queries", "nb_random_init", "draws", "batch_size"),
    ]
    _estimator_requirements = (BaseEstimator, ClassifierMixin)

    def __init__(
        self,
        estimator: Any,
        norm: int | float | str = "inf",
        eps: float = 0.3,
        *,
        max_iter: int = 100,
        max_queries: int = 5000,
        nb_random_init: int = 1,
        draws: int = 10,
        batch_size: int = 250,
    ) -> None:
        super().__init__(estimator=estimator)
        self.norm = norm
        self.eps = eps
        self.max_iter = max_iter
        self.max_queries = max_queries
        self.nb_random_init = nb_random_init
        self.draws = draws
        self.batch_size = batch_size
        self._check_params()
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

    def _check_params(self) -> None:
        if self.norm not in (2, np.inf, "inf"):
            raise ValueError(f"norm must be 'inf' or 2, not {self.norm!r}.")
        if not isinstance(self.eps, int | float) or self.eps <= 0:
            raise ValueError(f"eps must be a number above 0, not {self.eps!r}.")
        for name in ("max_iter", "max_queries", "nb_random_init", "draws", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}.")


class AutoAttackRand(AutoAttack):
    """APGD-CE and APGD-DLR with expectation over transformation: AutoAttack's version ``rand``.

    Args:
        eot_iter: draws that every pass is averaged over. A classifier that already averages
            (:class:`~qnad_art.network.module.AveragedDraws`) is used as it is.
        settings: those of :class:`AutoAttack`, apart from ``max_queries``.
    """

    attack_params = [  # noqa: RUF012
        *(name for name in AutoAttack.attack_params if name != "max_queries"),
        "eot_iter",
    ]

    def __init__(self, estimator: Any, *, eot_iter: int = 20, **settings: Any) -> None:
        self.eot_iter = eot_iter
        super().__init__(estimator, **settings)

    def _attacks(self) -> list[EvasionAttack]:
        already = isinstance(self.estimator.model, AveragedDraws)
        return self._auto_pgd(
            self.estimator if already else averaged(self.estimator, self.eot_iter)
        )

    def _attacks_for(self, outputs: list[np.ndarray]) -> list[EvasionAttack]:
        # If all draws are equal, one of them gives their mean at a fraction of the cost.
        return self._auto_pgd(self.estimator) if _equal(outputs) else self.attacks

    def _check_params(self) -> None:
        super()._check_params()
        if type(self.eot_iter) is not int or self.eot_iter < 1:
            raise ValueError(f"eot_iter must be a whole number from 1, not {self.eot_iter!r}.")


def _equal(outputs: list[np.ndarray]) -> bool:
    """Whether the first two draws exist and are equal, so that there is no noise."""
    return len(outputs) > 1 and np.array_equal(outputs[0], outputs[1])


def _judged(outputs: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of draws in which each image is classified right, and its mean margin."""
    logits = np.stack(outputs)
    right = labels.argmax(1)
    others = np.where(labels > 0, -np.inf, logits).max(2)
    margins = logits[:, np.arange(len(right)), right] - others
    shares: np.ndarray = (logits.argmax(2) == right).mean(0)
    return shares, margins.mean(0)
