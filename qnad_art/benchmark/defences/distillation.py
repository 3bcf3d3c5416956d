"""Defensive distillation: a student trained on the soft labels of the network."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.benchmark.defences.base import Work
from qnad_art.benchmark.defences.common import Count, Positive, copy_of
from qnad_art.benchmark.defences.training import Training
from qnad_art.benchmark.threats.victim import with_module
from qnad_art.datasets.dataset import Dataset


class DefensiveDistillation(Training):
    """Teacher and student of the same architecture, both trained anew at a high temperature.

    The student learns the teacher's probabilities. Papernot et al., IEEE S&P 2016,
    doi 10.1109/SP.2016.41, through ART's transformer. It is known to mask gradients (Carlini &
    Wagner 2017).

    Args:
        temperature: temperature of the softmax in training; predictions are made at 1.

    The other settings are those of :class:`~qnad_art.benchmark.defences.training.Training`.
    """

    name: ClassVar[str] = "defensive-distillation"

    epochs: Count = 20
    temperature: Positive = 20.0

    def train(self, student: PyTorchClassifier, data: Dataset, work: Work) -> None:
        """Train with ART's transformer, on probabilities at the temperature."""
        from art.defences.transformer.evasion import DefensiveDistillation as Distillation

        teacher = self._untrained(copy_of(student))
        teacher.fit(data.x, data.y, batch_size=self.batch_size, nb_epochs=self.epochs)
        teacher.model.eval()
        learner = self._untrained(student)
        Distillation(teacher, batch_size=self.batch_size, nb_epochs=self.epochs)(data.x, learner)
        student.model.eval()

    def _untrained(self, classifier: PyTorchClassifier) -> PyTorchClassifier:
        """Probabilities at the temperature, with fresh weights in the classifier's own module."""
        for part in classifier.model.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
        tempered = with_module(classifier, _Tempered(classifier.model, self.temperature))
        tempered.set_params(loss=_LogLoss(), optimizer=self.optimizer(classifier))
        return tempered


class _Tempered(nn.Module):
    """Softmax of the logits over the temperature."""

    def __init__(self, module: nn.Module, temperature: float) -> None:
        super().__init__()
        self.module = module
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = (self.module(x) / self.temperature).softmax(-1)
        return probabilities


class _LogLoss(nn.CrossEntropyLoss):
    """Cross-entropy of probabilities; ART leaves labels soft for this base class only."""

    def forward(self, input: Tensor, target: Any) -> Tensor:
        logs = input.clamp_min(torch.finfo(input.dtype).tiny).log()
        if target.ndim == 1:
            return functional.nll_loss(logs, target)
        loss: Tensor = -(target * logs).sum(1).mean()
        return loss
