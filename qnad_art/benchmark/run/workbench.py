"""The workbench of a worker: the images, networks and defended networks of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.defences import build_steps
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.run.tasks import Source, Step, Victim
from qnad_art.benchmark.suites.sources import classifier_of, data_hash, images_of_seed, load_images
from qnad_art.benchmark.threats.victim import reseed
from qnad_art.datasets.dataset import Dataset
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import QnadError
from qnad_art.models.architectures import Model
from qnad_art.models.code import code_address, find_model
from qnad_art.models.weights import load_model

Value = TypeVar("Value")
Say = Callable[[str], object]

_KEPT_NETWORKS = 3


class Latest:
    """The values that were used last, so that memory stays bounded."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of ``key``, which is made if it is not kept."""
        value: Value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        while len(self._values) > self._count:
            self._values.popitem(last=False)
        return value


class Kept:
    """Values that a worker keeps between jobs; ``gpu`` says whether classifiers are on the GPU."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.images = Latest(1)
        self.classifiers = Latest(_KEPT_NETWORKS)


class Workbench:
    """Images and classifiers of one run.

    Args:
        folder: folder of the run.
        source: source of its images and networks.
        kept: values that this worker keeps.
        say: function that takes lines on progress.
    """

    def __init__(self, folder: Path, source: Source, kept: Kept, say: Say) -> None:
        self.folder, self.say = folder, say
        self._source, self._kept = source, kept
        images = kept.images.get(source.model_dump_json(), partial(_checked, source))
        self.training, self.test = images

    def prepared(self, key: str) -> Path:
        """Folder of a preparation; it exists if and only if it is complete."""
        return self.folder / "prepared" / key

    def network(self, key: str) -> PyTorchClassifier:
        """The plain network of that key."""

        def make() -> PyTorchClassifier:
            network = load_model(self.prepared(key) / "weights.safetensors", self.code(key))
            return classifier_of(network, self.training, gpu=self._kept.gpu)

        return self._classifier(key, make)

    def code(self, key: str) -> Model | None:
        """The code of the plain network of that key, ``None`` if it has none.

        Raises:
            QnadError: the code is not the one that the run was planned with.
        """
        code = self._source.code.get(key)
        if code is None:
            return None
        if code_address(code.reference) != code.address:
            raise QnadError(
                f"{code.reference} has changed since the run was planned: start the run again, and "
                "make sure that every worker sees the same code."
            )
        return find_model(code.reference)

    def victim(self, victim: Victim) -> PyTorchClassifier:
        """The defended network, with all its sources of noise at their start."""
        if not victim.steps:
            return self.network(victim.network)
        key = victim.steps[-1].key

        def make() -> PyTorchClassifier:
            defence, base, work = self._last_step(victim)
            return defence.apply(base, work, self.prepared(key))

        return self._classifier(key, make)

    def fit(self, victim: Victim, folder: Path) -> None:
        """Fit the last step of the defence, which writes to ``folder``."""
        defence, base, work = self._last_step(victim)
        defence.fit(base, work, folder)

    @contextmanager
    def new_folder(self, key: str) -> Iterator[Path]:
        """Context with a folder to write to, which becomes that of a preparation at its end."""
        final = self.prepared(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=final.parent))
        try:
            yield aside
            aside.chmod(0o755)
            try:
                aside.rename(final)
            except OSError:
                # Another worker was faster; the content is the same.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _last_step(self, victim: Victim) -> tuple[Defence, PyTorchClassifier, Work]:
        """The last step of a defence, the classifier before it, and what the step may use."""
        step = victim.steps[-1]
        base = self.victim(victim.model_copy(update={"steps": victim.steps[:-1]}))
        (defence,) = build_steps(step.content)
        training = images_of_seed(self._source.data, self.training, victim.seed)
        return defence, base, Work(training, _device(step), victim.seed, self.say)

    def _classifier(self, key: str, make: Callable[[], PyTorchClassifier]) -> PyTorchClassifier:
        classifier = self._kept.classifiers.get(f"{self.folder} {key}", make)
        # It starts as it was made, whatever it has been used for since.
        classifier.model.eval()
        reseed(classifier, 0)
        return classifier


def _checked(source: Source) -> tuple[Dataset, Dataset]:
    training, test = load_images(source.data, source.data_dir)
    if (data_hash(training), data_hash(test)) != (source.training, source.test):
        raise QnadError(
            f"The images of {source.data.name} are not those that the run was planned with: every "
            "worker must see the same files."
        )
    return training, test


def _device(step: Step) -> DeviceProfile:
    device = load_device(step.device)
    if device.hash != step.device_hash:
        raise QnadError(
            f"{step.device} is not the device that the run was planned with: every worker must see "
            "the same device files and have the same version of qiskit-ibm-runtime."
        )
    return device
