"""Crosstalk that has already been tuned: the plan of a folder that ``qnad harden`` wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import Count, Positive, shuffled
from qnad_art.benchmark.values import Located
from qnad_art.crosstalk.carried import GainOnward, WordsOnward
from qnad_art.defence import CALIBRATION_IMAGES
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.network.settings import Allocation
from qnad_art.pretrained import PRETRAINED, pretrained_folder

if TYPE_CHECKING:
    from qnad_art.storage import Saved


class Hardened(Defence):
    """The network as circuits under the crosstalk plan of a hardened classifier.

    Hours of tuning are done once, by ``qnad harden``, and measured in any suite. The folder gives
    the plan, readout, gain, headroom and placement. It also gives the activation scales if the
    network is the one that was hardened. Another network of the same architecture, which shows
    whether a plan carries over, gets scales of its own from training images.

    Args:
        folder: folder written by ``qnad harden`` or ``QuantumExecutedClassifier.save``, relative to
            the suite's folder; or one of :data:`qnad_art.pretrained.PRETRAINED`.
        shots: shots per product; ``None`` for the exact expectation, ``"saved"`` for the folder's.
        allocation: how shots are allocated, see :class:`~qnad_art.defence.QNAD`.
        percentile: percentile of the activations on training images that is taken as their scale;
            ``None`` for the folder's scales, or for one that suits the shots if the network is
            another.
        calibration_images: number of images that set the activation scales.
        words: what becomes of the crosstalk if the suite's device is another calibration of the
            folder's, such as a drifted one: ``"kept"``, gain and offset included, or
            ``"re-encoded"``, see :func:`~qnad_art.crosstalk.carried.carried`. With ``None`` only
            the folder's own calibration will do.
    """

    name: ClassVar[str] = "hardened"
    quantum: ClassVar[bool] = True
    executes: ClassVar[bool] = True

    folder: Located
    shots: Count | Literal["saved"] | None = "saved"
    allocation: Allocation = "margin"
    percentile: Positive | None = None
    calibration_images: Count = CALIBRATION_IMAGES
    words: WordsOnward | None = None

    @property
    def path(self) -> Path:
        """Path of the folder."""
        return pretrained_folder(self.folder) if self.folder in PRETRAINED else Path(self.folder)

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """Whether there is shot noise; a folder that does not exist yet counts as without."""
        if self.shots != "saved":
            return self.shots is not None
        return (self.path / "manifest.json").exists() and self._saved().settings.shots is not None

    def content(self) -> dict[str, Any]:
        """The settings; results of before know nothing of ``words``."""
        content = super().content()
        return content if self.words else {k: v for k, v in content.items() if k != "words"}

    def identity(self) -> dict[str, Any]:
        """The settings, with the folder named by its content."""
        return {**self.content(), "folder": self._saved().checksum}

    def apply(
        self, classifier: PyTorchClassifier, work: Work, folder: Path
    ) -> QuantumExecutedClassifier:
        """The classifier as circuits under the folder's plan."""
        saved = self._saved()
        settings = replace(
            saved.settings,
            device=saved.device if self.words else work.device,
            shots=saved.settings.shots if self.shots == "saved" else self.shots,
            percentile=self.percentile,
            seed=work.seed,
        )
        images = shuffled(work).x[: self.calibration_images]
        hardened = QuantumExecutedClassifier.from_art(classifier, images, settings=settings)
        hardened.plan = saved.plan()
        if self.percentile is None and _same(hardened.module.network, saved.weights()):
            saved.calibrate(hardened.module)
        if self.words is not None:
            gain: GainOnward = "kept" if self.words == "kept" else "recalibrated"
            hardened = hardened.on(work.device, words=self.words, gain=gain)
        if settings.shots is not None and self.allocation == "margin":
            hardened.allocate_shots(images)
        return hardened

    def _saved(self) -> Saved:
        from qnad_art.storage import read_saved

        return read_saved(self.path)


def _same(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == weights.keys() and all(
        torch.equal(own[name].cpu(), tensor) for name, tensor in weights.items()
    )
