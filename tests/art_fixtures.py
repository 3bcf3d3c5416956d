"""What the tests of the ART side share: small trained networks and classifiers of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.models.architectures import build_model
from qnad_art.training.standard import TrainSettings, train

_SETTINGS = {
    "digits": TrainSettings(epochs=12, learning_rate=0.05, batch_size=32, device="cpu"),
    "mnist5k": TrainSettings(epochs=3, learning_rate=0.1, batch_size=32, device="cpu"),
}


@cache
def images(name: str = "digits", split: str = "test") -> Dataset:
    return load_dataset(name, split)


@cache
def _trained(name: str) -> dict[str, torch.Tensor]:
    model = build_model("lenet5", image_size=images(name).x.shape[-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same network on any number of cores
    try:
        train(model, images(name, "train"), _SETTINGS[name])
    finally:
        torch.set_num_threads(threads)
    return model.state_dict()


def network(name: str = "digits") -> nn.Module:
    """A trained LeNet-5 of its own for every caller."""
    model = build_model("lenet5", image_size=images(name).x.shape[-1])
    model.load_state_dict(_trained(name))
    return model.eval()


def plain(name: str = "digits", **settings: Any) -> PyTorchClassifier:
    """ART's own classifier of :func:`network`: the oracle."""
    data = images(name)
    given = {"clip_values": (0.0, 1.0), "device_type": "cpu", **settings}
    model = given.pop("model", None) or network(name)
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), data.x.shape[1:], 10, **given)


def hardened(
    classifier: PyTorchClassifier | None = None, name: str = "digits", **settings: Any
) -> QuantumExecutedClassifier:
    """:func:`plain` as circuits; scales from all images, so that nothing saturates by chance."""
    x = np.concatenate([images(name, "train").x, images(name).x])
    classifier = classifier if classifier is not None else plain(name)
    return QuantumExecutedClassifier.from_art(classifier, x, **{"seed": 0, **settings})


def ideal(classifier: PyTorchClassifier | None = None) -> QuantumExecutedClassifier:
    """Noise off: must do what ART's own classifier does."""
    return hardened(classifier, device="ideal")


def with_optimizer(
    classifier: QuantumExecutedClassifier, learning_rate: float = 0.01
) -> QuantumExecutedClassifier:
    parameters = classifier.model.parameters()
    classifier.set_params(optimizer=torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9))
    return classifier


def one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[y]
