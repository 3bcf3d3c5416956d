"""Networks that come with the package: trained weights, their tuned crosstalk, and their card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnad_art.errors import UnknownNameError
from qnad_art.files.atomic import read_json

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.estimator import QuantumExecutedClassifier

PRETRAINED: tuple[str, ...] = ("lenet5-mnist", "lenet5-mnist-paper")


@dataclass(frozen=True)
class Pretrained:
    """A network before and after hardening.

    Args:
        plain: the network as it was trained, an ART classifier.
        hardened: the same weights run as circuits under the tuned crosstalk plan.
        card: data, settings, measured figures and hashes.
    """

    plain: PyTorchClassifier
    hardened: QuantumExecutedClassifier
    card: dict[str, Any]


def pretrained_folder(name: str) -> Path:
    """Where one of :data:`PRETRAINED` is."""
    return Path(__file__).parent / name


def load_pretrained(name: str = "lenet5-mnist") -> Pretrained:
    """One of :data:`PRETRAINED`; raises :class:`~qnad_art.errors.UnknownNameError` for others."""
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.models.architectures import build_model

    if name not in PRETRAINED:
        raise UnknownNameError("pretrained network", name, PRETRAINED)
    directory = pretrained_folder(name)
    hardened = QuantumExecutedClassifier.load(directory)
    network = build_model(name.partition("-")[0]).eval()
    network.load_state_dict(hardened.module.network.state_dict())
    plain = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        hardened.input_shape,
        hardened.nb_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    return Pretrained(plain, hardened, read_json(directory / "card.json"))
