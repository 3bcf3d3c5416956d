"""The work of workers: they prepare networks, defences and examples, and measure cells."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from pydantic import TypeAdapter

from qnad_art.accuracy import package_versions
from qnad_art.benchmark.records import Plan, Provenance
from qnad_art.benchmark.run.cell import measure
from qnad_art.benchmark.run.folder import read_arrays, write_arrays
from qnad_art.benchmark.run.tasks import AnyUnit, Fit, Network, Preparations, Source, Task, Transfer
from qnad_art.benchmark.run.workbench import Kept, Say, Workbench
from qnad_art.benchmark.suites.sources import (
    data_hash,
    load_network,
    untrained_network,
    weights_hash,
)
from qnad_art.benchmark.threats.ladder import Examples, Origin, adversarial_examples
from qnad_art.benchmark.threats.victim import seeded
from qnad_art.errors import QnadError
from qnad_art.models.weights import save_weights
from qnad_art.network.module import QuantumExecutedModule

_EXAMPLES = "examples.npz"
_UNIT: TypeAdapter[Preparations | Task] = TypeAdapter(AnyUnit)


class Worker:
    """Carries out work of any run.

    Args:
        gpu: whether the worker uses the GPU.

    Raises:
        QnadError: there is no GPU.
    """

    def __init__(self, *, gpu: bool) -> None:
        if gpu and not torch.cuda.is_available():
            raise QnadError(
                f"A worker on {socket.gethostname()} has no GPU that torch can use; leave out --gpu"
            )
        torch.set_num_threads(1)
        # On a GPU: figures that repeat, and products in full precision.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        self._kept = Kept(gpu)

    def carry_out(self, job: Mapping[str, Any], say: Say) -> dict[str, Any] | None:
        """Do what a job asks for, and return the result of a cell, ``None`` for preparations.

        The outcome depends neither on the machine nor on what ran before: every source of
        randomness starts from a seed.
        """
        unit = _UNIT.validate_python(job["work"])
        source = Source.model_validate(job["source"])
        bench = Workbench(Path(job["run"]), source, self._kept, say)
        with seeded(int(unit.key[:8], 16)):
            if isinstance(unit, Task):
                return _measure(bench, unit)
            _prepare(bench, unit)
            return None


def _prepare(bench: Workbench, unit: Preparations) -> None:
    """Make what other work needs, unless it exists."""
    if bench.prepared(unit.key).is_dir():
        return
    with bench.new_folder(unit.key) as folder:
        if isinstance(unit, Network):
            _prepare_network(bench, unit, folder)
        elif isinstance(unit, Fit):
            bench.fit(unit.victim, folder)
        else:
            _prepare_transfer(bench, unit, folder)


def _prepare_network(bench: Workbench, unit: Network, folder: Path) -> None:
    bench.code(unit.key)  # raises if the code is not the planned one
    path = folder / "weights.safetensors"
    if unit.model.ready:
        save_weights(load_network(unit.model, bench.training), path)
        return
    from qnad_art.training.standard import EpochResult, train

    def tell(epoch: EpochResult) -> None:
        bench.say(f"epoch {epoch.epoch} of {epoch.epochs}, loss {epoch.loss:.4f}")

    network = untrained_network(unit.model, bench.training)
    # Hours of training survive a killed run.
    checkpoint = bench.prepared(f".{unit.key}.checkpoint.safetensors")
    train(
        network,
        bench.training,
        unit.model.training(),
        checkpoint=checkpoint,
        resume=checkpoint.exists(),
        on_epoch=tell,
    )
    save_weights(network, path)
    checkpoint.unlink(missing_ok=True)


def _prepare_transfer(bench: Workbench, unit: Transfer, folder: Path) -> None:
    plain, attack = bench.network(unit.network), unit.attack
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
    write_arrays(folder / _EXAMPLES, examples.arrays())


class _SharedExamples:
    """The :class:`~qnad_art.benchmark.threats.ladder.ExampleStore` of a cell."""

    def __init__(self, bench: Workbench, task: Task) -> None:
        self._bench, self._task = bench, task

    def load(self, origin: Origin) -> Examples | None:
        if origin not in self._task.shared:
            return None
        arrays = read_arrays(self._bench.prepared(self._task.examples_key(origin)) / _EXAMPLES)
        return None if arrays is None else Examples.from_arrays(arrays)

    def save(self, origin: Origin, examples: Examples) -> None:
        if origin in self._task.shared:
            with self._bench.new_folder(self._task.examples_key(origin)) as folder:
                write_arrays(folder / _EXAMPLES, examples.arrays())


def _measure(bench: Workbench, task: Task) -> dict[str, Any]:
    started = time.perf_counter()
    plain, victim = bench.network(task.victim.network), bench.victim(task.victim)
    measured = measure(
        victim,
        plain,
        task.cell,
        task.attack.spec if task.attack else None,
        bench.test.x,
        bench.test.y,
        protocol=task.protocol,
        seed=task.cell.seed,
        reuse=_SharedExamples(bench, task),
    )
    if task.keep_examples and task.cell.kind != "audit":
        arrays = {"x": bench.test.x, "y": bench.test.y, **measured.arrays}
        write_arrays(bench.folder / "examples" / f"{task.key}.npz", arrays)
    seconds = time.perf_counter() - started
    provenance = Provenance(
        **_execution(victim),
        data_hash=data_hash(bench.test),
        weights_hash=weights_hash(plain.model),
        seed=task.cell.seed,
        versions=package_versions(),
        gpu=torch.cuda.get_device_name() if victim.device.type == "cuda" else None,
    )
    result = measured.result(task.key, task.cell, seconds=seconds, provenance=provenance)
    return result.model_dump(mode="json")


def _execution(victim: PyTorchClassifier) -> dict[str, Any]:
    """Device, shots and plan of a victim that is executed as circuits, as provenance has them."""
    for part in victim.model.modules():
        if isinstance(part, QuantumExecutedModule):
            figures = {name: getattr(part.plan, name) for name in Plan.model_fields}
            plan = Plan(**figures)
            device = part.device_profile
            return {
                "device_hash": device.hash,
                "crosstalk_model": device.crosstalk_model,
                "shots": part.shots,
                "plan": plan,
            }
    return {"device_hash": None, "shots": None, "plan": None}
