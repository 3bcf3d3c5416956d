"""Foolbox's attacks as ART attacks; settings have Foolbox's names and its defaults."""

from __future__ import annotations

from typing import Any, ClassVar

import foolbox
from foolbox import attacks
from torch import Tensor

from qnad_art.benchmark.attacks.foreign import ForeignAttack, Network


class FoolboxAttack(ForeignAttack):
    """An attack of Foolbox (Rauber et al., JOSS 2020) on an ART classifier.

    A subclass names Foolbox's class and declares those of its settings that users may change.
    """

    kind: ClassVar[Any]
    fixed: ClassVar[dict[str, Any]] = {}
    """Settings that users may not change."""

    def attack(self) -> Any:
        """Foolbox's attack with the settings of this one."""
        given = {n: getattr(self, n) for n in self.attack_params if n not in ("batch_size", "eps")}
        return self.kind(**given, **self.fixed)

    def perturb(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """What Foolbox's ``run`` returns."""
        # Not Foolbox's __call__, which asks the network once more whether it was fooled.
        wrong = foolbox.criteria.Misclassification(y)
        found: Tensor = self.attack().run(model_of(network, x), x, wrong, **self._budget(network))
        return found

    def _budget(self, network: Network) -> dict[str, float]:
        return {}


def model_of(network: Network, x: Tensor) -> foolbox.PyTorchModel:
    """The network as Foolbox takes it, on the device of ``x``."""
    return foolbox.PyTorchModel(network, bounds=(0, 1), device=x.device)


class WithinBudget(FoolboxAttack):
    """Attacks that raise the loss within ``eps``."""

    eps: float = 0.3

    def _budget(self, network: Network) -> dict[str, float]:
        return {"epsilon": self.eps / network.span}


class Fgsm(WithinBudget):
    """One step along the sign of the gradient (Goodfellow et al. 2015), L∞."""

    kind = attacks.LinfFastGradientAttack
    random_start: bool = False


class Pgd(WithinBudget):
    """Projected gradient descent (Madry et al. 2018), L∞; steps are relative to ``eps``."""

    kind = attacks.LinfProjectedGradientDescentAttack
    steps: int = 40
    rel_stepsize: float = 0.01 / 0.3
    random_start: bool = True


class PgdL2(Pgd):
    """Projected gradient descent, L2."""

    kind = attacks.L2ProjectedGradientDescentAttack
    steps: int = 50
    rel_stepsize: float = 0.025


class PgdL1(PgdL2):
    """Projected gradient descent, L1."""

    kind = attacks.L1ProjectedGradientDescentAttack


class AdamPgd(Pgd):
    """Projected gradient descent with Adam's steps, L∞."""

    kind = attacks.LinfAdamProjectedGradientDescentAttack


class MiFgsm(WithinBudget):
    """Iterative FGSM with momentum (Dong et al. 2018), L∞."""

    kind = attacks.LinfMomentumIterativeFastGradientMethod
    steps: int = 10
    rel_stepsize: float = 0.2
    momentum: float = 1.0
    random_start: bool = False


class DeepFoolL2(FoolboxAttack):
    """DeepFool (Moosavi-Dezfooli et al. 2016), L2."""

    kind = attacks.L2DeepFoolAttack
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02


class DeepFoolLinf(DeepFoolL2):
    """DeepFool, L∞."""

    kind = attacks.LinfDeepFoolAttack


class CarliniWagner(FoolboxAttack):
    """Carlini & Wagner (2017), L2."""

    kind = attacks.L2CarliniWagnerAttack
    binary_search_steps: int = 9
    steps: int = 10000
    stepsize: float = 0.01
    initial_const: float = 0.001


class Ead(FoolboxAttack):
    """Elastic net (Chen et al. 2018): as Carlini & Wagner with an L1 term, judged by L1."""

    kind = attacks.EADAttack
    fixed: ClassVar[dict[str, Any]] = {"decision_rule": "L1"}
    binary_search_steps: int = 9
    steps: int = 10000
    initial_stepsize: float = 0.01
    initial_const: float = 0.001
    regularization: float = 0.01


class Ddn(FoolboxAttack):
    """Decoupled direction and norm (Rony et al. 2019), L2."""

    kind = attacks.DDNAttack
    steps: int = 100
    init_epsilon: float = 1.0
    gamma: float = 0.05


class FmnLinf(FoolboxAttack):
    """Fast minimum norm (Pintor et al. 2021), L∞."""

    kind = attacks.LInfFMNAttack
    steps: int = 100
    max_stepsize: float = 1.0
    gamma: float = 0.05


class FmnL2(FmnLinf):
    """Fast minimum norm, L2."""

    kind = attacks.L2FMNAttack


class FmnL0(FmnLinf):
    """Fast minimum norm, L0."""

    kind = attacks.L0FMNAttack


class SaltAndPepper(FoolboxAttack):
    """More and more black and white pixels until the class changes; no gradients."""

    kind = attacks.SaltAndPepperNoiseAttack
    steps: int = 1000
