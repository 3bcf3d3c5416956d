"""The work of a suite: its cells as tasks, and the preparations that they need."""

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
        preparations: by key, each after those that it needs.
        tasks: the cells, in the order of the suite.
        left_out: what is not measured, by reason, with the number of cells.
    """

    source: Source
    preparations: Mapping[str, Preparations]
    tasks: tuple[Task, ...]
    left_out: Mapping[str, int]

    def matching(self, pattern: str | None) -> list[Task]:
        """Tasks whose text matches a shell pattern such as ``*pgd*white-box*``; all for ``None``.

        Raises:
            InvalidInputError: there is none.
        """
        tasks = [task for task in self.tasks if pattern is None or fnmatchcase(str(task), pattern)]
        if not tasks:
            raise InvalidInputError(
                f"No cell matches {pattern!r}; one of them is {str(self.tasks[-1])!r}."
            )
        return tasks

    def preparations_for(self, tasks: Sequence[Task]) -> list[Preparations]:
        """What ``tasks`` are made from, each after what it is made from itself."""
        needed: set[str] = set()
        found = [key for task in tasks for key in task.needs]
        while found:
            key = found.pop()
            if key not in needed:
                needed.add(key)
                found += self.preparations[key].needs
        return [work for key, work in self.preparations.items() if key in needed]


def workload_of(suite: Suite, *, data_dir: str | None = None, allow_code: bool = False) -> Workload:
    """The work of a suite; reads its data, devices and weights files to name it.

    Args:
        suite, data_dir: as :func:`~qnad_art.benchmark.run.runner.run_suite`.
        allow_code: whether code that the suite names may be run; it is run here.

    Raises:
        InvalidInputError: the suite names code that may not be run.
        QnadError: data, a device or weights that are missing or damaged; two cells that are the
            same under different labels.
    """
    for label, spec in suite.models.items():
        if spec.code is not None and not allow_code:
            raise InvalidInputError(
                f"Model {label!r} is code, {spec.code}: read it, then allow it, allow_code=True."
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
                f"{seen[task.key]} and {task} are the same measurement under two labels; leave "
                "one of them out of the suite."
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
                        victim = self._victim(
                            model, network, defence, steps, device, devices[device], seed
                        )
                        where = {
                            "model": model,
                            "data": self.training.name,
                            "device": device,
                            "defence": defence,
                            "seed": seed,
                        }
                        yield from self._cells(where, victim)

    def _devices_for(self, defence: str, steps: tuple[Defence, ...]) -> tuple[str, ...]:
        labels = tuple(self.suite.devices)
        if any(step.quantum for step in steps):
            return labels
        if len(labels) > 1:
            cells = len(list(self._conditions())) + 1 + self.suite.audit
            reason = f"defence {defence} uses no quantum device: only once, under {labels[0]}"
            each = cells * (len(labels) - 1) * len(self.suite.seeds) * len(self.suite.models)
            self.left_out[reason] = each
        return labels[:1]

    def _network(self, label: str, spec: ModelSpec) -> str:
        content: dict[str, Any]
        if spec.ready:
            content = {"weights": weights_hash(load_network(spec, self.training))}
        else:
            settings = asdict(spec.training())
            content = {
                "architecture": spec.architecture,
                "by": provider("model", str(spec.architecture)),
                "settings": settings,
                "training": self.source.training,
            }
        if spec.code is not None:
            content["architecture"] = code_address(spec.code)
            if not spec.ready:  # which code may have read from anywhere
                content["start"] = weights_hash(untrained_network(spec, self.training))
        key = address("network", **content)
        if spec.code is not None:
            self.code[key] = Code(reference=spec.code, address=content["architecture"])
        self.preparations[key] = Network(key=key, label=f"network {label}", model=spec)
        return key

    def _victim(
        self,
        model: str,
        network: str,
        defence: str,
        steps: tuple[Defence, ...],
        device: str,
        profile: DeviceProfile,
        seed: int,
    ) -> Victim:
        """The network under the defence; adds the preparations of its steps."""
        victim = Victim(network=network, steps=(), seed=seed)
        settings = zip(steps, steps_content(steps), steps_identity(steps), strict=True)
        for step, content, identity in settings:
            key = address(
                "step",
                base=victim.key,
                step=identity,
                by=step.by,
                seed=seed,
                training=self._fitted_on(),
                device=profile.hash if step.quantum else None,
            )
            added = Step(
                key=key,
                content=content,
                fitted=type(step).fit is not Defence.fit,
                device=self.suite.devices[device],
                device_hash=profile.hash,
            )
            needs = victim.needs
            victim = Victim(network=network, steps=(*victim.steps, added), seed=seed)
            if added.fitted and key not in self.preparations:
                where = f" · {device}" if step.quantum else ""
                label = f"fit {content['name']} of {model}{where} · {defence} · seed {seed}"
                self.preparations[key] = Fit(key=key, needs=needs, label=label, victim=victim)
        return victim

    def _fitted_on(self) -> str:
        count = self.suite.data.fit_images
        return self.source.training if count is None else f"{count} of {self.source.training}"

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
        for rung in self.suite.rungs:
            for label, attack in self.suite.attacks.items():
                budgets = self.suite.budgets(attack) if attack.spec.budgeted else (None,)
                for eps in budgets:
                    yield rung, label, eps

    def _task(self, cell: Cell, victim: Victim, spec: AttackSpec | None = None) -> Task:
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
        transfer = self._transfer(cell, victim.network, attack)
        return task.model_copy(update={"needs": (*task.needs, transfer)})

    def _transfer(self, cell: Cell, network: str, attack: Attacked) -> str:
        key = attack.key("transfer", network)
        budget = "" if attack.eps is None else f" · ε {attack.eps:.4g}"
        label = f"examples of {cell.attack}{budget} on {cell.model} · seed {cell.seed}"
        self.preparations[key] = Transfer(
            key=key, needs=(network,), label=label, network=network, attack=attack
        )
        return key

    def _shared(self) -> tuple[Origin, ...]:
        """Examples that more than one rung of the suite starts from."""
        rungs = set(self.suite.rungs)
        stepwise: tuple[Origin, ...] = ("white-box",) if rungs & {"adaptive", "persistent"} else ()
        strongest: tuple[Origin, ...] = ("adaptive", "black-box") if "persistent" in rungs else ()
        return ("transfer", *stepwise, *strongest)
