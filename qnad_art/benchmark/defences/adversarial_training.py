"""Adversarial training of the weights, by ART's trainers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.defences.base import Work
from qnad_art.benchmark.defences.common import Count, Epsilon, NotNegative, Positive, copy_of
from qnad_art.benchmark.defences.training import Training, one_hot
from qnad_art.datasets.dataset import Dataset


class AdversarialTraining(Training):
    """Training on PGD examples.

    Args:
        epsilon: L∞ budget.
        attack_steps: number of steps of PGD, each of 2.5 ε / ``attack_steps``; the start is random.
    """

    epochs: Count = 5
    epsilon: Epsilon = 0.3
    attack_steps: Count = 5

    @property
    def step(self) -> float:
        """Size of a step of the attack."""
        return min(2.5 / self.attack_steps, 1.0) * self.epsilon

    def pgd(self, student: PyTorchClassifier) -> ProjectedGradientDescent:
        """The attack on the student itself."""
        return ProjectedGradientDescent(
            student,
            eps=self.epsilon,
            eps_step=self.step,
            max_iter=self.attack_steps,
            num_random_init=1,
            batch_size=self.batch_size,
            verbose=False,
        )


class Madry(AdversarialTraining):
    """Adversarial training with PGD. Madry et al., ICLR 2018, arXiv 1706.06083.

    The settings are those of :class:`AdversarialTraining`.
    """

    name: ClassVar[str] = "madry"

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer."""
        from art.defences.trainer import AdversarialTrainerMadryPGD

        trainer = AdversarialTrainerMadryPGD(
            student, eps=self.epsilon, eps_step=self.step, max_iter=self.attack_steps
        )
        trainer.attack.set_params(batch_size=self.batch_size)
        self.annealed(trainer, student, data, by_batch=True)


class Trades(AdversarialTraining):
    """TRADES: clean loss and β times the divergence under attack. Zhang et al., ICML 2019.

    Args:
        beta: weight of the divergence.

    The other settings are those of :class:`AdversarialTraining`.
    """

    name: ClassVar[str] = "trades"

    beta: NotNegative = 6.0

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer."""
        from art.defences.trainer import AdversarialTrainerTRADESPyTorch

        trainer = AdversarialTrainerTRADESPyTorch(student, self.pgd(student), beta=self.beta)
        self.annealed(trainer, student, data)


class Awp(AdversarialTraining):
    """Adversarial weight perturbation. Wu, Xia, Wang, NeurIPS 2020, arXiv 2004.05884.

    Args:
        mode: the training that the weights are perturbed in, ``"pgd"`` (Madry) or ``"trades"``.
        gamma: size of the perturbation, relative to the weights of a layer.
        beta: weight of the divergence in TRADES.
        warmup: epochs without perturbation.

    The other settings are those of :class:`AdversarialTraining`.
    """

    name: ClassVar[str] = "awp"

    mode: Literal["pgd", "trades"] = "pgd"
    gamma: Positive = 0.005
    beta: NotNegative = 6.0
    warmup: int = 0

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer."""
        from art.defences.trainer import AdversarialTrainerAWPPyTorch

        trainer = AdversarialTrainerAWPPyTorch(
            student,
            proxy_of(student),
            self.pgd(student),
            mode=self.mode,
            gamma=self.gamma,
            beta=self.beta,
            warmup=self.warmup,
        )
        self.annealed(trainer, student, data)


class FastAdversarialTraining(Training):
    """Fast is better than free: FGSM from a random start. Wong, Rice, Kolter, ICLR 2020.

    Args:
        epsilon: L∞ budget.
        epochs, batch_size: settings of training.
        learning_rate: peak of the learning rate, which rises and falls linearly; the optimizer is
            SGD with momentum.
    """

    name: ClassVar[str] = "fast-adversarial-training"

    epochs: Count = 15
    epsilon: Epsilon = 0.3
    learning_rate: Positive = 0.05

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer."""
        from art.defences.trainer import AdversarialTrainerFBFPyTorch

        AdversarialTrainerFBFPyTorch(student, eps=self.epsilon).fit(
            data.x, one_hot(data), batch_size=self.batch_size, nb_epochs=self.epochs
        )

    def optimizer(self, student: PyTorchClassifier) -> torch.optim.Optimizer:
        """SGD at a fixed share of the rate that ART sets, which peaks at 0.21."""
        share = self.learning_rate / 0.21

        class Scaled(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                rates = [group["lr"] for group in self.param_groups]
                for group in self.param_groups:
                    group["lr"] *= share
                try:
                    return super().step(closure)
                finally:
                    for group, rate in zip(self.param_groups, rates, strict=True):
                        group["lr"] = rate

        return Scaled(student.model.parameters(), lr=0.21, momentum=0.9)


def proxy_of(student: PyTorchClassifier) -> PyTorchClassifier:
    """A copy of ``student`` with an optimizer of its own, in which AWP looks for a perturbation."""
    proxy = copy_of(student)
    proxy.set_params(optimizer=torch.optim.SGD(proxy.model.parameters(), lr=0.01))
    return proxy
