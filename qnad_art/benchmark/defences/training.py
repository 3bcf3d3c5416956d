"""Defences that train the weights: what they share, augmentation, and adversarial fine-tuning."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

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
    load_module,
    quiet,
    save_module,
)
from qnad_art.benchmark.threats.victim import seeded
from qnad_art.datasets.dataset import Dataset
from qnad_art.training.adversarial import AdversarialSettings, Precision


class Cosine(torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.lr_scheduler._LRScheduler):
    """Cosine annealing to zero, of the class that ART's TRADES and AWP ask for (ART issue 2389)."""


class Training(Defence):
    """Trains a copy of the classifier, from the weights that it has.

    Args:
        epochs, batch_size, learning_rate: of Adam, annealed to zero along a cosine.
    """

    epochs: Count = EPOCHS
    batch_size: Count = 128
    learning_rate: Positive = 1e-3

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Train, and write the weights."""
        student = self.prepared(copy_of(classifier), work)
        student.set_params(optimizer=self.optimizer(student))
        work.say(f"{self.name}: {self.epochs} epochs on {len(work.training):,} images")
        with seeded(work.seed), quiet():
            self.train(student, work.training, work)
        save_module(student.model, folder)

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the weights that were trained."""
        student = self.prepared(copy_of(classifier), work)
        load_module(student.model, folder)
        return student

    @abstractmethod
    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train ``student``, which has an optimizer, in the seed's context."""

    def prepared(self, student: PyTorchClassifier, work: Work) -> PyTorchClassifier:
        """``student`` with what is to be trained besides its own weights."""
        return student

    def optimizer(self, student: PyTorchClassifier) -> torch.optim.Optimizer:
        """Of the weights."""
        return torch.optim.Adam(student.model.parameters(), lr=self.learning_rate)

    def annealed(self, student: PyTorchClassifier, steps: int) -> Cosine:
        """The learning rate's way to zero."""
        return Cosine(student.optimizer, T_max=steps)

    def batches(self, data: Dataset) -> int:
        """Of one epoch."""
        return -(-len(data) // self.batch_size)


class GaussianAugmentation(Training):
    """Training on images and copies with Gaussian noise. Zantedeschi et al., AISec 2017.

    Args:
        sigma: standard deviation of the noise, in units of the input.
        ratio: noisy copies an image, drawn anew in every epoch.

    The others are those of :class:`Training`.
    """

    name: ClassVar[str] = "gaussian-augmentation"

    sigma: Positive = 0.25
    ratio: Positive = 1.0

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """ART's augmentation, epoch by epoch."""
        from art.defences.preprocessor import GaussianAugmentation as Augmentation

        augmentation = Augmentation(
            sigma=self.sigma, ratio=self.ratio, clip_values=clip_range(student)
        )
        schedule = self.annealed(student, self.epochs)
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
        AdversarialSettings(**self.model_dump())  # which raises for what it cannot use
        return self

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """The package's own loop."""
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
    """Labels as rows."""
    return np.eye(len(data.classes), dtype=np.float32)[data.y]
