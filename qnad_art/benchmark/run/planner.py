"""Plan the work of a suite: its cells as tasks, and the preparations that they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.defences import steps_content, steps_identity
from qnad_art.benchmark.defences.base import Defence
from qnad_art.benchmark.records import Cell, Rung
from qnad_art.benchmark.run.tasks import (
    Attacked,
    Code,
    Fit,
    Network,
    Preparations,
    Source,
    Step,
    Task,
    Transfer,
    Victim,
    address,
)
from qnad_art.benchmark.suites.sources import (
    data_hash,
    images_of_seed,
    load_images,
    load_network,
    untrained_network,
    weights_hash,
)
from qnad_art.benchmark.suites.suite import ModelSpec, Suite
from qnad_art.benchmark.threats.ladder import Origin, rungs_of
from qnad_art.datasets.dataset import Dataset
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.models.code import code_address
from qnad_art.plugins.discovery import provider


@dataclass(frozen=True)
class Workload:
    """All work of a suite.

    Args:
        source: what the run starts from.
        preparations: preparations by key, each after those that it needs.
        tasks: the cells, in the order of the suite.
        left_out: numbers of cells that are not measured, by reason.
    """

    source: Source
    preparations: Mapping[str, Preparations]
    tasks: tuple[Task, ...]
    left_out: Mapping[str, int]

    def matching(self, pattern: str | None) -> list[Task]:
        """Tasks whose text matches a shell pattern such as ``*pgd*white-box*``; all for ``None``.

        Raises:
            InvalidInputError: no task matches.
        """
        tasks = [task for task in self.tasks if pattern is None or fnmatchcase(str(task), pattern)]
        if not tasks:
            raise InvalidInputError(
                f"No cell matches {pattern!r}; one of them is {str(self.tasks[-1])!r}."
            )
        return tasks

    def preparations_for(self, tasks: Sequence[Task]) -> list[Preparations]:
        """All preparations that ``tasks`` need, each after those that it needs itself."""
        needed = {key for task in tasks for key in task.needs}
        for key, work in reversed(list(self.preparations.items())):
            if key in needed:
                needed.update(work.needs)
        return [work for key, work in self.preparations.items() if key in needed]


def workload_of(suite: Suite, *, data_dir: str | None = None, allow_code: bool = False) -> Workload:
    """The work of a suite, named by the data, devices and weights files that are read here.

    Args:
        suite, data_dir: see :func:`~qnad_art.benchmark.run.runner.run_suite`.
        allow_code: whether code that the suite names may be run; it is run here.

    Raises:
        InvalidInputError: the suite names code and may not run it, or names one measurement twice
            under different labels.
        QnadError: data, a device or weights are missing or damaged.
    """
    for label, spec in suite.models.items():
        if spec.code is not None and not allow_code:
            raise InvalidInputError(
                f"Model {label!r} is code, {spec.code}: read it, then give allow_code=True."
            )
    training, test = load_images(suite.data, data_dir)
    try:
        images_of_seed(suite.data, training, 0)
    except InvalidInputError as error:
        raise InvalidInputError(f"data.fit_images: {error}") from None
    source = Source(
        data=suite.data, data_dir=data_dir, training=data_hash(training), test=data_hash(test)
    )
    planner = _Planner(suite, source, training)
    tasks = tuple(planner.tasks())
    seen: dict[str, Task] = {}
    for task in tasks:
        if task.key in seen:
            raise InvalidInputError(
                f"{seen[task.key]} and {task} are the same measurement under two labels; remove "
                "one of them from the suite."
            )
        seen[task.key] = task
    source = source.model_copy(update={"code": planner.code})
    return Workload(source, planner.preparations, tasks, dict(planner.left_out))


@dataclass
class _Planner:
    suite: Suite
    source: Source
    training: Dataset
    preparations: dict[str, Preparations] = field(default_factory=dict)
    code: dict[str, Code] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def tasks(self) -> Iterator[Task]:
        suite = self.suite
        devices = {label: load_device(device) for label, device in suite.devices.items()}
        for model, spec in suite.models.items():
            network = self._network(model, spec)
            for defence, steps in suite.defences.items():
                for device in self._devices_for(defence, steps):
                    for seed in suite.seeds:
                        where = {
                            "model": model,
                            "data": self.training.name,
                            "device": device,
                            "defence": defence,
                            "seed": seed,
                        }
                        victim = self._victim(Cell(kind="clean", **where), network, devices[device])
                        yield from self._cells(where, victim)

    def _devices_for(self, defence: str, steps: tuple[Defence, ...]) -> tuple[str, ...]:
        labels = tuple(self.suite.devices)
        if any(step.quantum for step in steps):
            return labels
        if len(labels) > 1:
            cells = len(list(self._conditions())) + 1 + self.suite.audit
            reason = f"defence {defence} uses no quantum device: only once, under {labels[0]}"
            repeats = (len(labels) - 1) * len(self.suite.seeds) * len(self.suite.models)
            self.left_out[reason] = cells * repeats
        return labels[:1]

    def _network(self, label: str, spec: ModelSpec) -> str:
        """Key of a plain network; adds its preparation."""
        content: dict[str, Any]
        if spec.ready:
            content = {"weights": weights_hash(load_network(spec, self.training))}
        else:
            content = {
                "architecture": spec.architecture,
                "by": provider("model", str(spec.architecture)),
                "settings": asdict(spec.training()),
                "training": self.source.training,
            }
        if spec.code is not None:
            content["architecture"] = code_address(spec.code)
            if not spec.ready:  # code may read initial weights from anywhere
                content["start"] = weights_hash(untrained_network(spec, self.training))
        key = address("network", **content)
        if spec.code is not None:
            self.code[key] = Code(reference=spec.code, address=content["architecture"])
        self.preparations[key] = Network(key=key, label=f"network {label}", model=spec)
        return key

    def _victim(self, cell: Cell, network: str, profile: DeviceProfile) -> Victim:
        """The network under the defence of a cell; adds the preparations of its steps."""
        steps, count = self.suite.defences[cell.defence], self.suite.data.fit_images
        training = self.source.training
        victim = Victim(network=network, steps=(), seed=cell.seed)
        settings = zip(steps, steps_content(steps), steps_identity(steps), strict=True)
        for step, content, identity in settings:
            key = address(
                "step",
                base=victim.key,
                step=identity,
                by=step.by,
                seed=cell.seed,
                training=training if count is None else f"{count} of {training}",
                device=profile.hash if step.quantum else None,
            )
            added = Step(
                key=key,
                content=content,
                fitted=type(step).fit is not Defence.fit,
                device=self.suite.devices[cell.device],
                device_hash=profile.hash,
            )
            needs = victim.needs
            victim = victim.model_copy(update={"steps": (*victim.steps, added)})
            if added.fitted and key not in self.preparations:
                where = f"{cell.model} · {cell.device}" if step.quantum else cell.model
                label = f"fit {content['name']} of {where} · {cell.defence} · seed {cell.seed}"
                self.preparations[key] = Fit(key=key, needs=needs, label=label, victim=victim)
        return victim

    def _cells(self, where: Mapping[str, Any], victim: Victim) -> Iterator[Task]:
        yield self._task(Cell(kind="clean", **where), victim)
        if self.suite.audit:
            yield self._task(Cell(kind="audit", **where), victim)
        for rung, label, eps in self._conditions():
            spec = self.suite.attacks[label].spec
            if rung not in rungs_of(spec):
                self.left_out[f"{label} is a {spec.kind} attack, not for the rung {rung}"] += 1
                continue
            cell = Cell(kind="attack", attack=label, eps=eps, rung=rung, **where)
            yield self._task(cell, victim, spec)

    def _conditions(self) -> Iterator[tuple[Rung, str, float | None]]:
        """Rung, label of the attack, and ε of every attack cell of a victim."""
        for rung in self.suite.rungs:
            for label, attack in self.suite.attacks.items():
                budgets = self.suite.budgets(attack) if attack.spec.budgeted else (None,)
                for eps in budgets:
                    yield rung, label, eps

    def _task(self, cell: Cell, victim: Victim, spec: AttackSpec | None = None) -> Task:
        """The task of a cell; adds the examples that it starts from."""
        protocol, attack = self.suite.protocol, None
        if spec is not None:
            attack = Attacked(
                spec=spec,
                by=provider("attack", spec.name),
                eps=cell.eps,
                protocol=protocol,
                seed=cell.seed,
                images=self.source.test,
            )
        key = address(
            f"cell, {cell.kind}",
            victim=victim.key,
            network=victim.network,
            images=self.source.test,
            rung=cell.rung,
            attack=attack and attack.model_dump(mode="json"),
            protocol=protocol.model_dump(mode="json"),
            seed=cell.seed,
        )
        task = Task(
            key=key,
            needs=victim.needs,
            cell=cell,
            victim=victim,
            protocol=protocol,
            attack=attack,
            shared=self._shared() if attack else (),
            keep_examples=self.suite.keep_examples,
        )
        if attack is None or not task.starts_from_transfer:
            return task
        network, examples = victim.network, attack.key("transfer", victim.network)
        budget = "" if attack.eps is None else f" · ε {attack.eps:.4g}"
        label = f"examples of {cell.attack}{budget} on {cell.model} · seed {cell.seed}"
        self.preparations[examples] = Transfer(
            key=examples, needs=(network,), label=label, network=network, attack=attack
        )
        return task.model_copy(update={"needs": (*task.needs, examples)})

    def _shared(self) -> tuple[Origin, ...]:
        """Origins of examples that more than one rung of the suite starts from."""
        if "persistent" in self.suite.rungs:
            return ("transfer", "white-box", "adaptive", "black-box")
        return ("transfer", "white-box") if "adaptive" in self.suite.rungs else ("transfer",)
