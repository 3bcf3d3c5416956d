"""What a worker works with: the images, networks and defended networks of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.defences import build_steps
from qnad_art.benchmark.defences.base import Work
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
    """The last few values that were asked for, so that memory stays flat."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made if it is not kept."""
        value: Value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        while len(self._values) > self._count:
            self._values.popitem(last=False)
        return value


class Kept:
    """What a worker keeps from one piece of work to the next.

    Args:
        gpu: whether its classifiers are on the GPU.
    """

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.images = Latest(1)
        self.classifiers = Latest(_KEPT_NETWORKS)


class Workbench:
    """Everything of one run.

    Args:
        folder: of the run.
        source: of its images.
        kept: of this worker.
        say: takes lines on progress.
    """

    def __init__(self, folder: Path, source: Source, kept: Kept, say: Say) -> None:
        self.folder, self.say = folder, say
        self._source, self._kept = source, kept

    @property
    def training(self) -> Dataset:
        """The training images."""
        return self._images()[0]

    @property
    def test(self) -> Dataset:
        """The test images."""
        return self._images()[1]

    def prepared(self, key: str) -> Path:
        """Folder of a preparation; it is there if and only if it is complete."""
        return self.folder / "prepared" / key

    def network(self, key: str) -> PyTorchClassifier:
        """The plain network of that key."""

        def make() -> PyTorchClassifier:
            network = load_model(self.prepared(key) / "weights.safetensors", self.code(key))
            return classifier_of(network, self.training, gpu=self._kept.gpu)

        return self._classifier(key, make)

    def code(self, key: str) -> Model | None:
        """The code of the plain network of that key, as it was planned; ``None`` if it has none."""
        code = self._source.code.get(key)
        if code is None:
            return None
        if code_address(code.reference) != code.address:
            raise QnadError(
                f"{code.reference} has changed since the run was planned: start the run again, and "
                "let every worker see the same code."
            )
        return find_model(code.reference)

    def victim(self, victim: Victim) -> PyTorchClassifier:
        """The defended network, with all its sources of noise at their start."""
        if not victim.steps:
            return self.network(victim.network)
        step = victim.steps[-1]

        def make() -> PyTorchClassifier:
            base = self.victim(victim.before_last)
            (defence,) = build_steps(step.content)
            return defence.apply(base, self.work(step, victim.seed), self.prepared(step.key))

        return self._classifier(step.key, make)

    def work(self, step: Step, seed: int) -> Work:
        """What a step of a defence may use."""
        training = images_of_seed(self._source.data, self.training, seed)
        return Work(training, _device(step), seed, self.say)

    @contextmanager
    def new_folder(self, key: str) -> Iterator[Path]:
        """A folder to write to, which becomes that of a preparation once everything is there."""
        final = self.prepared(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=final.parent))
        try:
            yield aside
            aside.chmod(0o755)
            try:
                aside.rename(final)
            except OSError:
                # Somebody was faster: the content is the same.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _images(self) -> tuple[Dataset, Dataset]:
        source = self._source
        return self._kept.images.get(source.model_dump_json(), lambda: _checked(source))

    def _classifier(self, key: str, make: Callable[[], PyTorchClassifier]) -> PyTorchClassifier:
        classifier = self._kept.classifiers.get(f"{self.folder} {key}", make)
        # As it was when it was made, whatever it has been used for.
        classifier.model.eval()
        reseed(classifier, 0)
        return classifier


def _checked(source: Source) -> tuple[Dataset, Dataset]:
    training, test = load_images(source.data, source.data_dir)
    if (data_hash(training), data_hash(test)) != (source.training, source.test):
        raise QnadError(
            f"The images of {source.data.name} are not those that the run was planned for: every "
            "worker must see the same files."
        )
    return training, test


def _device(step: Step) -> DeviceProfile:
    device = load_device(step.device)
    if device.hash != step.device_hash:
        raise QnadError(
            f"{step.device} is not the device that the run was planned for: every worker must see "
            "the same device files and have the same version of qiskit-ibm-runtime."
        )
    return device
