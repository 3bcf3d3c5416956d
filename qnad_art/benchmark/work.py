"""What workers do: prepare networks, defences and examples, and measure cells."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from art.estimators.classification import PyTorchClassifier
from pydantic import TypeAdapter

from qnad_art.benchmark.defence import Work
from qnad_art.benchmark.defences import build_steps
from qnad_art.benchmark.measure import measure
from qnad_art.benchmark.records import Plan as PlanRecord
from qnad_art.benchmark.records import Provenance
from qnad_art.benchmark.sources import (
    classifier_of,
    data_hash,
    load_images,
    load_network,
    untrained_network,
    weights_hash,
)
from qnad_art.benchmark.store import read_arrays, write_arrays
from qnad_art.benchmark.tasks import AnyWork, Fit, Network, Source, Step, Task, Transfer, Victim
from qnad_art.benchmark.threats import Examples, Origin, adversarial_examples
from qnad_art.benchmark.victim import reseed, seeded
from qnad_art.benchmark.wire import Message
from qnad_art.datasets import Dataset
from qnad_art.device import DeviceProfile, load_device
from qnad_art.errors import QnadError
from qnad_art.measure import package_versions
from qnad_art.models import load_model, save_weights
from qnad_art.module import QuantumExecutedModule

Value = TypeVar("Value")
Say = Callable[[str], object]

_WORK: TypeAdapter[Network | Fit | Transfer | Task] = TypeAdapter(AnyWork)
_KEPT_VICTIMS = 3


class Latest:
    """The last few values that were asked for."""

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


class Workshop:
    """Carries out work of any run; keeps the images and the last few networks."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._images = Latest(1)
        self._classifiers = Latest(_KEPT_VICTIMS)

    def carry_out(self, message: Message, say: Say) -> Message | None:
        """Do what a message asks for; the result of a cell, nothing for preparations.

        Whatever ran before, and wherever this runs, the outcome is the same: every source of
        randomness starts from a seed.
        """
        work = _WORK.validate_python(message["work"])
        source = Source.model_validate(message["source"])
        bench = _Bench(self, Path(message["run"]) / "prepared", source, say)
        with seeded(int(work.key[:8], 16)):
            if isinstance(work, Task):
                return _measure(bench, work, Path(message["run"]) / "examples")
            prepare(bench, work)
            return None

    def images(self, source: Source) -> tuple[Dataset, Dataset]:
        """Training and test images, checked."""
        return self._images.get(source.model_dump_json(), lambda: _checked_images(source))

    def classifier(self, key: str, make: Callable[[], PyTorchClassifier]) -> PyTorchClassifier:
        """A classifier that is kept for the next work, as it is when it is made."""
        classifier: PyTorchClassifier = self._classifiers.get(key, make)
        classifier.model.eval()
        reseed(classifier, 0)
        return classifier


def _checked_images(source: Source) -> tuple[Dataset, Dataset]:
    training, test = load_images(source.data, source.data_dir)
    if (data_hash(training), data_hash(test)) != (source.training, source.test):
        raise QnadError(
            f"The images of {source.data.name} are not those that the run was planned for: every "
            "worker must see the same files."
        )
    return training, test


class _Bench:
    """A workshop at work on one run."""

    def __init__(self, workshop: Workshop, prepared: Path, source: Source, say: Say) -> None:
        self._workshop, self._source = workshop, source
        self.prepared, self.say = prepared, say

    @property
    def training(self) -> Dataset:
        return self._workshop.images(self._source)[0]

    @property
    def test(self) -> Dataset:
        return self._workshop.images(self._source)[1]

    def network(self, key: str) -> PyTorchClassifier:
        """The plain network."""

        def make() -> PyTorchClassifier:
            return classifier_of(
                load_model(self.prepared / key / "weights.safetensors"), self.training
            )

        return self._workshop.classifier(f"{self.prepared} {key}", make)

    def victim(self, victim: Victim) -> PyTorchClassifier:
        """The defended network."""
        if not victim.steps:
            return self.network(victim.network)
        *before, last = victim.steps

        def make() -> PyTorchClassifier:
            base = self.victim(victim.model_copy(update={"steps": tuple(before)}))
            (step,) = build_steps(last.content)
            return step.apply(base, self.work(last, victim.seed), self.prepared / last.key)

        return self._workshop.classifier(f"{self.prepared} {last.key}", make)

    def work(self, step: Step, seed: int) -> Work:
        """What a step of a defence may use."""
        return Work(self.training, _device(step), seed, self.say)

    @contextmanager
    def new_folder(self, key: str) -> Iterator[Path]:
        """A folder to write to, which becomes that of ``key`` once everything is there."""
        self.prepared.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.prepared))
        try:
            yield aside
            aside.chmod(0o755)
            try:
                aside.rename(self.prepared / key)
            except OSError:
                # Somebody was faster: the content is the same.
                if not (self.prepared / key).is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _device(step: Step) -> DeviceProfile:
    device = load_device(step.device)
    if device.hash != step.device_hash:
        raise QnadError(
            f"{step.device} is not the device that the run was planned for: every worker must see "
            "the same device files and have the same version of qiskit-ibm-runtime."
        )
    return device


def prepare(bench: _Bench, work: Network | Fit | Transfer) -> None:
    """Make what others need, unless it is there."""
    if (bench.prepared / work.key).is_dir():
        return
    with bench.new_folder(work.key) as folder:
        if isinstance(work, Network):
            _prepare_network(bench, work, folder)
        elif isinstance(work, Fit):
            *before, last = work.victim.steps
            base = bench.victim(work.victim.model_copy(update={"steps": tuple(before)}))
            (step,) = build_steps(last.content)
            step.fit(base, bench.work(last, work.victim.seed), folder)
        else:
            _prepare_transfer(bench, work, folder)


def _prepare_network(bench: _Bench, work: Network, folder: Path) -> None:
    if work.model.weights or work.model.pretrained:
        network = load_network(work.model, bench.training)
    else:
        from qnad_art.training import train

        network = untrained_network(work.model, bench.training)
        # Training for hours survives a killed run.
        checkpoint = bench.prepared / f".{work.key}.checkpoint.safetensors"
        train(
            network,
            bench.training,
            work.model.training(),
            checkpoint=checkpoint,
            resume=checkpoint.exists(),
            on_epoch=lambda e: bench.say(f"epoch {e.epoch} of {e.epochs}, loss {e.loss:.4f}"),
        )
        checkpoint.unlink()
    save_weights(network, folder / "weights.safetensors")


def _prepare_transfer(bench: _Bench, work: Transfer, folder: Path) -> None:
    plain, attack = bench.network(work.network), work.attack
    examples = adversarial_examples(
        plain,
        plain,
        attack.spec,
        bench.test.x,
        bench.test.y,
        rung="transfer",
        eps=attack.eps,
        protocol=attack.protocol,
        seed=attack.seed,
    )
    write_arrays(folder / "examples.npz", examples.arrays())


class _SharedExamples:
    """The :class:`~qnad_art.benchmark.threats.ExampleStore` of a cell."""

    def __init__(self, bench: _Bench, task: Task) -> None:
        self._bench, self._task = bench, task

    def load(self, origin: Origin) -> Examples | None:
        found = read_arrays(self._path(origin)) if origin in self._task.shared else None
        return None if found is None else Examples.from_arrays(found)

    def save(self, origin: Origin, examples: Examples) -> None:
        if origin in self._task.shared:
            with self._bench.new_folder(self._task.examples_key(origin)) as folder:
                write_arrays(folder / "examples.npz", examples.arrays())

    def _path(self, origin: Origin) -> Path:
        return self._bench.prepared / self._task.examples_key(origin) / "examples.npz"


def _measure(bench: _Bench, task: Task, kept: Path) -> Message:
    started = time.perf_counter()
    plain, victim = bench.network(task.victim.network), bench.victim(task.victim)
    test = bench.test
    measured = measure(
        victim,
        plain,
        task.cell,
        task.attack.spec if task.attack else None,
        test.x,
        test.y,
        protocol=task.protocol,
        seed=task.cell.seed,
        reuse=_SharedExamples(bench, task),
    )
    if task.keep_examples and task.cell.kind != "audit":
        arrays = {"x": test.x, "y": test.y, **measured.arrays}
        write_arrays(kept / f"{task.key}.npz", arrays)
    result = measured.result(
        task.key,
        task.cell,
        seconds=time.perf_counter() - started,
        provenance=_provenance(bench, task, plain, victim),
    )
    return result.model_dump(mode="json")


def _provenance(
    bench: _Bench, task: Task, plain: PyTorchClassifier, victim: PyTorchClassifier
) -> Provenance:
    parts = (part for part in victim.model.modules() if isinstance(part, QuantumExecutedModule))
    quantum = next(parts, None)
    plan = None
    if quantum is not None:
        plan = PlanRecord(
            strategy=quantum.plan.strategy,
            requested=quantum.plan.requested,
            achieved=quantum.plan.achieved,
            injected=quantum.plan.injected,
        )
    return Provenance(
        device_hash=None if quantum is None else quantum.device_profile.hash,
        shots=None if quantum is None else quantum.shots,
        plan=plan,
        data_hash=data_hash(bench.test),
        weights_hash=weights_hash(plain.model),
        seed=task.cell.seed,
        versions=package_versions(),
    )
