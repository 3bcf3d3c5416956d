"""Defences by classical noise: smoothing, random self-ensemble, parametric noise injection."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.nn.utils import parametrize

from qnad_art.benchmark.defences.adversarial_training import AdversarialTraining
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import (
    CONVOLUTIONS,
    Count,
    Epsilon,
    NotNegative,
    Positive,
    copy_of,
    wrap_layers,
)
from qnad_art.benchmark.defences.noise_modules import (
    NoisyInput,
    NoisyNetwork,
    WeightNoise,
    layers_with_weights,
)
from qnad_art.benchmark.defences.training import Training
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import InvalidInputError
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.network.module import AveragedDraws


class RandomizedSmoothing(Defence):
    """Mean of the softmax over copies of the image with Gaussian noise.

    Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918, with the mean in place of the vote, so
    that there are gradients; no certificate is computed. A network that never saw noise loses
    accuracy: put ``gaussian-augmentation`` before this step.

    Args:
        sigma: standard deviation of the noise, in units of the input.
        samples: noisy copies per prediction.
    """

    name: ClassVar[str] = "randomized-smoothing"
    noisy: ClassVar[bool] = True

    sigma: Positive = 0.25
    samples: Count = 10

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the noise in its module."""
        noise = NoiseSource(work.seed)
        layer = NoisyInput(copy_of(classifier).model, self.sigma, noise)
        return _ensemble(classifier, NoisyNetwork(layer, noise), self.samples)


class Rse(Training):
    """Random self-ensemble: noise before every convolution, in training and in prediction.

    Liu, Cheng, Zhang, Hsieh, ECCV 2018, arXiv 1712.00673. The prediction is the mean of the
    softmax over passes.

    Args:
        sigma_first: standard deviation of the noise before the first convolution.
        sigma_inner: standard deviation of the noise before the others.
        samples: passes per prediction.

    The other settings are those of :class:`~qnad_art.benchmark.defences.training.Training`.
    """

    name: ClassVar[str] = "rse"
    noisy: ClassVar[bool] = True

    epochs: Count = 15
    sigma_first: NotNegative = 0.2
    sigma_inner: NotNegative = 0.1
    samples: Count = 10

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The ensemble of the network with noise."""
        student = super().apply(classifier, work, folder)
        return _ensemble(student, student.model, self.samples)

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """The student with noise before its convolutions."""
        noise, network = NoiseSource(work.seed), student.model

        def wrap(layer: nn.Module, number: int) -> nn.Module:
            return NoisyInput(layer, self.sigma_inner if number else self.sigma_first, noise)

        if not wrap_layers(network, CONVOLUTIONS, wrap):
            raise InvalidInputError("The network has no convolution to put noise before.")
        return with_module(student, NoisyNetwork(network, noise))

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train plainly, with another draw of the noise in every pass."""
        self.annealed(student, student, data)
        student.model.eval()


class Pni(AdversarialTraining):
    """Parametric noise injection: weights w + α·η, η ~ N(0, var(w)), α trained for each layer.

    He, Rakin, Fan, CVPR 2019, arXiv 1811.09310: adversarial training, half on clean images and half
    on PGD examples.

    Args:
        alpha: initial value of α.

    The other settings are those of adversarial training (``madry``).
    """

    name: ClassVar[str] = "pni"
    noisy: ClassVar[bool] = True

    epsilon: Epsilon = 0.3
    alpha: NotNegative = 0.25

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """The student with noise on the weights of its convolutions and linear layers."""
        noise, network = NoiseSource(work.seed), student.model
        layers: list[Any] = layers_with_weights(network)
        if not layers:
            raise InvalidInputError("The network has no weights to put noise on.")
        for layer in layers:
            parametrize.register_parametrization(
                layer, "weight", WeightNoise(layer.weight, self.alpha, noise), unsafe=True
            )
        return with_module(student, NoisyNetwork(network, noise))

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's trainer; the attack sees the noise."""
        from art.defences.trainer import AdversarialTrainer

        trainer = AdversarialTrainer(student, self.pgd(student), ratio=0.5)
        self.annealed(trainer, student, data, by_batch=True)
        student.model.eval()


def _ensemble(classifier: PyTorchClassifier, noisy: nn.Module, samples: int) -> PyTorchClassifier:
    return with_module(classifier, AveragedDraws(noisy, samples, of="probabilities"))
