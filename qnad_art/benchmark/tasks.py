"""The work of a suite: cells to measure, and what has to be prepared for them.

Everything is named by its content: all that the result depends on and nothing else. So what is
there needs no second making, and what defences have in common (the network, the adversarial
training before the crosstalk, the transferred examples) is made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from qnad_art import __version__
from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.defence import Defence
from qnad_art.benchmark.defences import steps_content
from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Cell, Record, Rung, content_address
from qnad_art.benchmark.sources import data_hash, load_images, load_network, weights_hash
from qnad_art.benchmark.suite import DataSpec, ModelSpec, Suite
from qnad_art.benchmark.threats import Origin, rungs_of
from qnad_art.datasets import Dataset
from qnad_art.device import DeviceProfile, load_device
from qnad_art.errors import InvalidInputError

FORMAT = 1


class Source(Record):
    """The images of a suite: where they are, and the hashes of what must be found there."""

    data: DataSpec
    data_dir: str | None
    training: str
    test: str


class Step(Record):
    """A step of a defence.

    Args:
        key: names what the step makes of all before it.
        content: its settings, as :func:`~qnad_art.benchmark.defences.build_steps` takes them.
        fitted: whether it has something to prepare.
        device, device_hash: the quantum device, and what it must be.
    """

    key: str
    content: dict[str, Any]
    fitted: bool
    device: str
    device_hash: str


class Victim(Record):
    """A plain network under a defence."""

    network: str
    steps: tuple[Step, ...]
    seed: int

    @property
    def key(self) -> str:
        """Names the defended network."""
        return self.steps[-1].key if self.steps else self.network

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the preparations that it is made from."""
        return (self.network, *(step.key for step in self.steps if step.fitted))


class Work(Record):
    """What a worker does in one go; ``needs`` are the keys of the preparations that it uses."""

    key: str
    needs: tuple[str, ...] = ()


class Preparation(Work):
    """What several cells use, made once; ``label`` names it for people."""

    label: str

    def __str__(self) -> str:
        return self.label


class Network(Preparation):
    """The plain network, trained or read."""

    kind: Literal["network"] = "network"
    model: ModelSpec


class Fit(Preparation):
    """The last step of a defence, fitted."""

    kind: Literal["fit"] = "fit"
    victim: Victim


class Attacked(Record):
    """An attack with all that its examples depend on, besides the attacked network."""

    spec: AttackSpec
    eps: float | None
    protocol: Protocol
    seed: int
    images: str

    def key(self, origin: Origin, network: str) -> str:
        """Names examples that were made on the network of that key."""
        return _address(f"examples, {origin}", network=network, **self.model_dump(mode="json"))


class Transfer(Preparation):
    """Adversarial examples made on the plain network."""

    kind: Literal["transfer"] = "transfer"
    network: str
    attack: Attacked


class Task(Work):
    """A cell to measure.

    Args:
        attack: of attack cells.
        shared: origins of examples that other cells use too.
        keep_examples: whether examples and predictions are kept for people to see.
    """

    kind: Literal["cell"] = "cell"
    cell: Cell
    victim: Victim
    protocol: Protocol
    attack: Attacked | None = None
    shared: tuple[Origin, ...] = ()
    keep_examples: bool = False

    def __str__(self) -> str:
        return str(self.cell)

    def examples_key(self, origin: Origin) -> str:
        """Names the examples that the cell starts from."""
        assert self.attack is not None
        network = self.victim.network if origin == "transfer" else self.victim.key
        return self.attack.key(origin, network)


AnyWork = Annotated[Network | Fit | Transfer | Task, Field(discriminator="kind")]


@dataclass(frozen=True)
class Plan:
    """All work of a suite.

    Args:
        preparations: by key, each after those that it needs.
        tasks: the cells, in the order of the suite.
        left_out: what is not measured, by reason, with the number of cells.
    """

    source: Source
    preparations: Mapping[str, Network | Fit | Transfer]
    tasks: tuple[Task, ...]
    left_out: Mapping[str, int]


def tasks_of(suite: Suite, *, data_dir: str | None = None) -> Plan:
    """The work of a suite; reads its data, devices and weights files to name it.

    Raises:
        QnadError: data, a device or weights that are missing or damaged; two cells that are the
            same under different labels.
    """
    training, test = load_images(suite.data, data_dir)
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
    return Plan(source, planner.preparations, tasks, dict(planner.left_out))


@dataclass
class _Planner:
    suite: Suite
    source: Source
    training: Dataset
    preparations: dict[str, Network | Fit | Transfer] = field(default_factory=dict)
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
        if spec.weights or spec.pretrained:
            content = {"weights": weights_hash(load_network(spec, self.training))}
        else:
            settings = asdict(spec.training())
            content = {
                "architecture": spec.architecture,
                "settings": settings,
                "training": self.source.training,
            }
        key = _address("network", **content)
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
        for step, content in zip(steps, steps_content(steps), strict=True):
            key = _address(
                "step",
                base=victim.key,
                step=content,
                seed=seed,
                training=self.source.training,
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
                label = f"fit {step.name} of {model}{where} · {defence} · seed {seed}"
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
        for rung in self.suite.rungs:
            for label, attack in self.suite.attacks.items():
                budgets = self.suite.budgets(attack) if attack.spec.budgeted else (None,)
                for eps in budgets:
                    yield rung, label, eps

    def _task(self, cell: Cell, victim: Victim, spec: AttackSpec | None = None) -> Task:
        protocol, needs, attack = self.suite.protocol, victim.needs, None
        if spec is not None:
            attack = Attacked(
                spec=spec,
                eps=cell.eps,
                protocol=protocol,
                seed=cell.seed,
                images=self.source.test,
            )
        if attack is not None and cell.rung == "transfer":
            needs = (*needs, self._transfer(cell, victim.network, attack))
        key = _address(
            f"cell, {cell.kind}",
            victim=victim.key,
            network=victim.network,
            images=self.source.test,
            rung=cell.rung,
            attack=attack and attack.model_dump(mode="json"),
            protocol=protocol.model_dump(mode="json"),
            seed=cell.seed,
        )
        return Task(
            key=key,
            needs=needs,
            cell=cell,
            victim=victim,
            protocol=protocol,
            attack=attack,
            shared=self._shared() if attack else (),
            keep_examples=self.suite.keep_examples,
        )

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


def _address(kind: str, **content: Any) -> str:
    return content_address({"kind": kind, "format": FORMAT, "qnad-art": __version__, **content})
