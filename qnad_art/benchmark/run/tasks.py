"""Units of work: to measure a cell, or to prepare what several cells use.

Each unit is named by its content: by all that its result depends on and nothing else. So nothing is
made twice, and what defences share (the network, the adversarial training before the crosstalk, the
transferred examples) is made once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Cell, Record, content_address
from qnad_art.benchmark.suites.suite import DataSpec, ModelSpec
from qnad_art.benchmark.threats.ladder import Origin
from qnad_art.version import __version__

FORMAT = 2
"""Version of what work does: it rises when the same work has another result."""


class Code(Record):
    """Code of a network, and its :func:`~qnad_art.models.code.code_address`."""

    reference: str
    address: dict[str, str]


class Source(Record):
    """What a run starts from, and the hashes by which workers check it.

    Args:
        data, data_dir: the images, and where they are.
        training, test: hashes of the images.
        code: code of the networks that have their own, by key of the network.
    """

    data: DataSpec
    data_dir: str | None
    training: str
    test: str
    code: dict[str, Code] = Field(default_factory=dict)


class Step(Record):
    """A step of a defence.

    Args:
        key: name of the network after this step.
        content: its settings, as :func:`~qnad_art.benchmark.defences.build_steps` takes them.
        fitted: whether it has something to prepare.
        device, device_hash: the quantum device, and the hash that its profile must have.
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
        """Name of the defended network."""
        return self.steps[-1].key if self.steps else self.network

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the preparations that the network is made from."""
        return (self.network, *(step.key for step in self.steps if step.fitted))


class Unit(Record):
    """A piece of work; ``needs`` are the keys of the preparations that it uses."""

    key: str
    needs: tuple[str, ...] = ()


class Preparation(Unit):
    """Work whose result several cells use; ``label`` names it for people."""

    label: str

    def __str__(self) -> str:
        return self.label


class Network(Preparation):
    """Train or read the plain network."""

    kind: Literal["network"] = "network"
    model: ModelSpec


class Fit(Preparation):
    """Fit the last step of a defence."""

    kind: Literal["fit"] = "fit"
    victim: Victim


class Attacked(Record):
    """An attack with all that its examples depend on, except the attacked network.

    Args:
        by: plugin that provides the attack, with its version; ``None`` for this package.
        images: hash of the test images.
    """

    spec: AttackSpec
    by: str | None
    eps: float | None
    protocol: Protocol
    seed: int
    images: str

    def key(self, origin: Origin, network: str) -> str:
        """Name of the examples of a kind that are made on the network of that key."""
        return address(f"examples, {origin}", network=network, **self.model_dump(mode="json"))


class Transfer(Preparation):
    """Make adversarial examples on the plain network."""

    kind: Literal["transfer"] = "transfer"
    network: str
    attack: Attacked


class Task(Unit):
    """Measure a cell.

    Args:
        attack: attack of an attack cell.
        shared: origins of examples that other cells use as well.
        keep_examples: whether examples and predictions are kept for the report.
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

    @property
    def starts_from_transfer(self) -> bool:
        """Whether its examples are those made on the plain network.

        Without a defence, an attack on the victim is an attack on the plain network.
        """
        if self.cell.rung in ("white-box", "adaptive", "persistent"):
            gradient = self.attack is not None and self.attack.spec.kind == "gradient"
            return gradient and not self.victim.steps
        return self.cell.rung == "transfer"

    def examples_key(self, origin: Origin) -> str:
        """Name of the examples that the cell starts from."""
        assert self.attack is not None
        network = self.victim.network if origin == "transfer" else self.victim.key
        return self.attack.key(origin, network)


Preparations = Network | Fit | Transfer
AnyUnit = Annotated[Preparations | Task, Field(discriminator="kind")]


def address(kind: str, **content: Any) -> str:
    """Content address of work done by this version of the package."""
    return content_address({"kind": kind, "format": FORMAT, "qnad-art": __version__, **content})
