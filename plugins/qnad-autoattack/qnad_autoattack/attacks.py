"""AutoAttack and its parts, in the authors' own code, as ART attacks."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from art.estimators.classification import PyTorchClassifier
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from qnad_art.benchmark.attacks.foreign import ForeignAttack, Network
from qnad_art.errors import InvalidInputError
from qnad_art.network.module import AveragedDraws

_NORMS = {"inf": "Linf", "2": "L2", "1": "L1"}
_TARGETS = 9


class AuthorsAttack(ForeignAttack):
    """An attack in the code of Croce & Hein (ICML 2020).

    Args:
        eps: budget.
        norm: that it bounds.
    """

    classes: ClassVar[int] = 2
    """How many classes it needs."""

    eps: float = 0.3
    norm: Literal["inf", "2", "1"] = "inf"

    def __init__(self, estimator: PyTorchClassifier, **settings: Any) -> None:
        super().__init__(estimator, **settings)
        if estimator.nb_classes < self.classes:
            raise InvalidInputError(
                f"{type(self).__name__} needs {self.classes} classes or more, and the classifier "
                f"has {estimator.nb_classes}: take pyautoattack-apgd-ce or pyautoattack-square."
            )

    def perturb(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """What the authors' code returns."""
        # It seeds torch's global generators by itself, by the clock if it is not told how.
        seed = int(torch.randint(2**31 - 1, ()))
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            common = {
                "norm": _NORMS[self.norm],
                "eps": self.eps / network.span,
                "seed": seed,
                "device": x.device,
            }
            return self._perturb(network, x, y, common)

    @abstractmethod
    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        """As :meth:`perturb`; ``common`` are arguments of all the authors' attacks."""

    @property
    def targets(self) -> int:
        """Classes that a targeted attack tries, the likeliest first."""
        return min(_TARGETS, int(self.estimator.nb_classes) - 1)

    def samples(self, wanted: int) -> int:
        """Draws that gradients are averaged over: one where the network averages already."""
        return 1 if isinstance(self.estimator.model, AveragedDraws) else wanted


class ApgdCe(AuthorsAttack):
    """Auto-PGD on the cross-entropy.

    Args:
        eps, norm: of the budget.
        max_iter, nb_random_init: steps and restarts.
        eot_iter: draws that a gradient is averaged over.
        best_loss: return for every image the point of highest loss. If not, as in AutoAttack: a
            point that was misclassified in one draw, or else the image as it was.
    """

    loss: ClassVar[str] = "ce"

    max_iter: int = 100
    nb_random_init: int = 1
    eot_iter: int = 1
    best_loss: bool = False

    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        attack = APGDAttack(
            network,
            n_iter=self.max_iter,
            n_restarts=self.nb_random_init,
            eot_iter=self.samples(self.eot_iter),
            loss=self.loss,
            **common,
        )
        found: Tensor = attack.perturb(x, y, best_loss=self.best_loss)
        return found


class ApgdDlr(ApgdCe):
    """Auto-PGD on the difference of logits ratio."""

    classes = 3
    loss = "dlr"


class ApgdTargeted(AuthorsAttack):
    """Auto-PGD on the targeted difference of logits ratio, for the likeliest nine classes."""

    classes = 4

    max_iter: int = 100
    eot_iter: int = 1

    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        attack = APGDAttack_targeted(
            network,
            n_iter=self.max_iter,
            n_target_classes=self.targets,
            eot_iter=self.samples(self.eot_iter),
            **common,
        )
        found: Tensor = attack.perturb(x, y)
        return found


class FabTargeted(AuthorsAttack):
    """Fast adaptive boundary attack (Croce & Hein 2020), for the likeliest nine classes."""

    max_iter: int = 100

    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        attack = FABAttack_PT(
            network,
            n_iter=self.max_iter,
            n_target_classes=self.targets,
            targeted=True,
            **common,
        )
        found: Tensor = attack.perturb(x, y)
        return found


class Square(AuthorsAttack):
    """Square Attack (Andriushchenko et al. 2020): random search, no gradients.

    Args:
        eps, norm: of the budget.
        max_queries: tries.
        resc_schedule: let the squares shrink as fast as fits ``max_queries``, as ART's port does.
            If not, as in AutoAttack, they shrink as if there were 10,000.
    """

    max_queries: int = 5000
    resc_schedule: bool = False

    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        attack = SquareAttack(
            network, n_queries=self.max_queries, resc_schedule=self.resc_schedule, **common
        )
        with torch.no_grad():
            found: Tensor = attack.perturb(x, y)
        return found


class _Ensemble(AuthorsAttack):
    """Attacks one after the other, each on the images that still stand in one prediction."""

    version: ClassVar[str]

    max_iter: int = 100

    def _perturb(self, network: Network, x: Tensor, y: Tensor, common: dict[str, Any]) -> Tensor:
        with _tracing_kept():
            auto = AutoAttack(network, version=self.version, **common)
            self._set(auto)
            found: Tensor = auto.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return found

    @abstractmethod
    def _set(self, auto: AutoAttack) -> None:
        """Change what the settings say."""

    def _with_steps(self, attack: APGDAttack, **more: Any) -> APGDAttack:
        """A copy with this number of steps: its checkpoints follow from them when it is made."""
        kept = ("norm", "n_restarts", "eps", "seed", "eot_iter", "device", "use_largereps")
        settings = {name: getattr(attack, name) for name in (*kept, "logger")}
        return type(attack)(attack.model, n_iter=self.max_iter, **{**settings, **more})


class Standard(_Ensemble):
    """AutoAttack, version ``standard``: APGD-CE, targeted APGD, targeted FAB and Square.

    What stands in one prediction says little of a network with noise, see :class:`Rand`.

    Args:
        eps, norm: of the budget.
        max_iter: steps of each attack but Square; the authors' is 100.
        max_queries: of Square; the authors' is 5,000.
    """

    classes = 4
    version = "standard"

    max_queries: int = 5000

    def _set(self, auto: AutoAttack) -> None:
        auto.apgd = self._with_steps(auto.apgd)
        auto.apgd_targeted = self._with_steps(auto.apgd_targeted, n_target_classes=self.targets)
        auto.fab.n_iter, auto.fab.n_target_classes = self.max_iter, self.targets
        auto.square.n_queries = self.max_queries


class Rand(_Ensemble):
    """AutoAttack, version ``rand``: APGD-CE and APGD-DLR, gradients averaged over draws.

    Args:
        eps, norm: of the budget.
        max_iter: steps of each attack; the authors' is 100.
        eot_iter: draws that a gradient is averaged over, the authors' is 20; a classifier that
            averages already (:class:`~qnad_art.network.module.AveragedDraws`) is taken as it is.
    """

    classes = 3
    version = "rand"

    eot_iter: int = 20

    def _set(self, auto: AutoAttack) -> None:
        auto.apgd = self._with_steps(auto.apgd, eot_iter=self.samples(self.eot_iter))


@contextmanager
def _tracing_kept() -> Iterator[None]:
    """The authors' check for defences that change at test time switches tracing off for good."""
    trace = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(trace)
