"""Defences that train the weights: what they share, augmentation, and adversarial fine-tuning."""

from __future__ import annotations

import io
from abc import abstractmethod
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from pydantic import model_validator

from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import (
    EPOCHS,
    Count,
    Epsilon,
    Fraction,
    Positive,
    clip_range,
    copy_of,
)
from qnad_art.benchmark.threats.victim import seeded
from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import ArtifactError
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.training.adversarial import AdversarialSettings, Precision

_WEIGHTS, _KIND = "weights.safetensors", "defence-weights"


class Cosine(torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.lr_scheduler._LRScheduler):
    """Cosine annealing to zero, of the class that ART's TRADES and AWP ask for (ART issue 2389)."""


class Training(Defence):
    """Trains a copy of the classifier, starting from its weights.

    Args:
        epochs, batch_size: settings of training.
        learning_rate: initial learning rate of Adam, annealed to zero along a cosine.
    """

    epochs: Count = EPOCHS
    batch_size: Count = 128
    learning_rate: Positive = 1e-3

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Train, and write the weights."""
        student = self.prepared(copy_of(classifier), work)
        student.set_params(optimizer=self.optimizer(student))
        work.say(f"{self.name}: {self.epochs} epochs on {len(work.training):,} images")
        # ART's trainers always draw progress bars.
        with seeded(work.seed), redirect_stderr(io.StringIO()):
            self.train(student, work.training, work)
        save_tensors(folder / _WEIGHTS, student.model.state_dict(), kind=_KIND, header={})

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the trained weights.

        Raises:
            ArtifactError: the weights are missing, damaged, or for another architecture.
        """
        student = self.prepared(copy_of(classifier), work)
        path = folder / _WEIGHTS
        tensors, _ = load_tensors(path, kind=_KIND)
        try:
            student.model.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtifactError(f"{path} is for another network: {error}.") from error
        return student

    @abstractmethod
    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train ``student``, which has an optimizer; global generators start from the seed."""

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """``student`` with everything that is trained in addition to its own weights."""
        return student

    def optimizer(self, student: PyTorchClassifier) -> torch.optim.Optimizer:
        """Optimizer of the student's weights."""
        return torch.optim.Adam(student.model.parameters(), lr=self.learning_rate)

    def annealed(
        self, trainer: Any, student: PyTorchClassifier, data: Dataset, *, by_batch: bool = False
    ) -> None:
        """Have ``trainer``, the student or a trainer of ART, train with the annealed rate.

        ``by_batch`` says that the trainer steps the schedule in every batch, not in every epoch.
        """
        batches = -(-len(data) // self.batch_size) if by_batch else 1
        trainer.fit(
            data.x,
            data.y,
            batch_size=self.batch_size,
            nb_epochs=self.epochs,
            scheduler=Cosine(student.optimizer, T_max=self.epochs * batches),
        )


class GaussianAugmentation(Training):
    """Training on images and copies with Gaussian noise. Zantedeschi et al., AISec 2017.

    Args:
        sigma: standard deviation of the noise, in units of the input.
        ratio: noisy copies per image, drawn anew in every epoch.

    The other settings are those of :class:`Training`.
    """

    name: ClassVar[str] = "gaussian-augmentation"

    sigma: Positive = 0.25
    ratio: Positive = 1.0

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train on ART's augmentation, epoch by epoch."""
        from art.defences.preprocessor import GaussianAugmentation as Augmentation

        augmentation = Augmentation(
            sigma=self.sigma, ratio=self.ratio, clip_values=clip_range(student)
        )
        schedule = Cosine(student.optimizer, T_max=self.epochs)
        for _ in range(self.epochs):
            x, y = augmentation(data.x, data.y)
            student.fit(x, y, batch_size=self.batch_size, nb_epochs=1, scheduler=schedule)


class Finetune(Training):
    """Adversarial fine-tuning of the weights: the control of ``qnad-tuned`` at the same budget.

    The loop, the attack, the steps and the choice of the epoch are those of tuned crosstalk; see
    :func:`qnad_art.training.finetune.adversarial_finetune`.

    Args:
        epsilon, attack_steps, robust_weight, epochs, batch_size, learning_rate, patience,
            validation_fraction, shot_noise, precision: as
            :class:`~qnad_art.training.adversarial.AdversarialSettings`.
    """

    name: ClassVar[str] = "finetune"

    epsilon: Epsilon = AdversarialSettings.epsilon
    attack_steps: Count = AdversarialSettings.attack_steps
    robust_weight: Fraction = AdversarialSettings.robust_weight
    patience: int | None = AdversarialSettings.patience
    validation_fraction: float = AdversarialSettings.validation_fraction
    shot_noise: bool = AdversarialSettings.shot_noise
    precision: Precision = AdversarialSettings.precision

    @model_validator(mode="after")
    def _usable(self) -> Finetune:
        AdversarialSettings(**self.model_dump())  # which raises for values that it cannot use
        return self

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train in the package's own loop."""
        from qnad_art.training.finetune import adversarial_finetune

        inputs, _ = student._apply_preprocessing(data.x, y=None, fit=False)
        settings = AdversarialSettings(
            **self.model_dump(),
            clip=clip_range(student),
            seed=work.seed,
            on_epoch=lambda epoch: work.say(str(epoch)),
        )
        tuned = adversarial_finetune(
            student.model, torch.as_tensor(inputs), torch.as_tensor(data.y), settings
        )
        student.model.load_state_dict(tuned.state_dict())


def one_hot(data: Dataset) -> np.ndarray:
    """Labels as rows (N, classes)."""
    return np.eye(len(data.classes), dtype=np.float32)[data.y]
