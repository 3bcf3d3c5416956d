"""Defences by classical noise: smoothing, random self-ensemble, parametric noise injection."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.benchmark.defences.adversarial_training import AdversarialTraining
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import (
    CONVOLUTIONS,
    Count,
    Epsilon,
    NotNegative,
    Positive,
    copy_of,
)
from qnad_art.benchmark.defences.noise_modules import (
    with_noisy_convolutions,
    with_noisy_input,
    with_noisy_weights,
)
from qnad_art.benchmark.defences.training import Training
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.datasets.dataset import Dataset
from qnad_art.network.module import AveragedDraws


class RandomizedSmoothing(Defence):
    """Mean of the softmax over copies of the image with Gaussian noise.

    Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918, with the mean in place of the vote, so
    that there are gradients; no certificate. A network that never saw noise suffers: put
    ``gaussian-augmentation`` before it.

    Args:
        sigma: standard deviation of the noise, in units of the input.
        samples: noisy copies a prediction.
    """

    name: ClassVar[str] = "randomized-smoothing"

    sigma: Positive = 0.25
    samples: Count = 10

    @property
    def noisy(self) -> bool:
        """Always."""
        return True

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the noise in its module."""
        smoothed = with_noisy_input(copy_of(classifier).model, self.sigma, work.seed)
        return _ensemble(classifier, smoothed, self.samples)


class Rse(Training):
    """Random self-ensemble: noise before every convolution, in training and in prediction.

    Liu, Cheng, Zhang, Hsieh, ECCV 2018, arXiv 1712.00673. The prediction is the mean of the
    softmax over passes.

    Args:
        sigma_first: standard deviation of the noise before the first convolution.
        sigma_inner: before the others.
        samples: passes a prediction.

    The others are those of :class:`~qnad_art.benchmark.defences.training.Training`.
    """

    name: ClassVar[str] = "rse"

    epochs: Count = 15
    sigma_first: NotNegative = 0.2
    sigma_inner: NotNegative = 0.1
    samples: Count = 10

    @property
    def noisy(self) -> bool:
        """Always."""
        return True

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The ensemble of the network with noise."""
        student = super().apply(classifier, work, folder)
        return _ensemble(student, student.model, self.samples)

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """The student with noise before its convolutions."""
        noisy = with_noisy_convolutions(
            student.model, CONVOLUTIONS, self.sigma_first, self.sigma_inner, work.seed
        )
        return with_module(student, noisy)

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Plain training, every pass with another draw."""
        steps = self.annealed(student, self.epochs)
        student.fit(
            data.x, data.y, batch_size=self.batch_size, nb_epochs=self.epochs, scheduler=steps
        )
        student.model.eval()


class Pni(AdversarialTraining):
    """Parametric noise injection: weights w + α·η, η ~ N(0, var(w)), α trained for each layer.

    He, Rakin, Fan, CVPR 2019, arXiv 1811.09310: adversarial training, half on clean images and half
    on PGD examples.

    Args:
        alpha: with which training begins.

    The others are those of adversarial training (``madry``).
    """

    name: ClassVar[str] = "pni"

    epsilon: Epsilon = 0.3
    alpha: NotNegative = 0.25

    @property
    def noisy(self) -> bool:
        """Always."""
        return True

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """The student with noise on its weights."""
        return with_module(student, with_noisy_weights(student.model, self.alpha, work.seed))

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """ART's trainer, the attack seeing the noise."""
        from art.defences.trainer import AdversarialTrainer

        attack: ProjectedGradientDescent = self.pgd(student)
        steps = self.annealed(student, self.epochs * self.batches(data))
        AdversarialTrainer(student, attack, ratio=0.5).fit(
            data.x,
            data.y,
            batch_size=self.batch_size,
            nb_epochs=self.epochs,
            scheduler=steps,
        )
        student.model.eval()


def _ensemble(classifier: PyTorchClassifier, noisy: nn.Module, samples: int) -> PyTorchClassifier:
    return with_module(classifier, AveragedDraws(noisy, samples, of="probabilities"))
