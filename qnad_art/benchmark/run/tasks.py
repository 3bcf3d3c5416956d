"""What workers do in one go: measure a cell, or prepare what several cells use.

Everything is named by its content: all that the result depends on and nothing else. So what is
there needs no second making, and what defences have in common (the network, the adversarial
training before the crosstalk, the transferred examples) is made once.
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
"""Rises when the same work would have another result: here, with PGD's restarts."""


class Code(Record):
    """Code of a network, and its :func:`~qnad_art.models.code.code_address`."""

    reference: str
    address: dict[str, str]


class Source(Record):
    """What a run starts from: where it is, and the hashes of what must be found there.

    Args:
        data, data_dir: the images.
        training, test: hashes of them.
        code: of the networks that have code of their own, by key of the network.
    """

    data: DataSpec
    data_dir: str | None
    training: str
    test: str
    code: dict[str, Code] = Field(default_factory=dict)


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
    def before_last(self) -> Victim:
        """Without the last step."""
        return self.model_copy(update={"steps": self.steps[:-1]})

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the preparations that it is made from."""
        return (self.network, *(step.key for step in self.steps if step.fitted))


class Unit(Record):
    """A piece of work; ``needs`` are the keys of the preparations that it uses."""

    key: str
    needs: tuple[str, ...] = ()


class Preparation(Unit):
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
    """An attack with all that its examples depend on, besides the attacked network.

    Args:
        by: plugin that the attack is of, with its version.
    """

    spec: AttackSpec
    by: str | None
    eps: float | None
    protocol: Protocol
    seed: int
    images: str

    def key(self, origin: Origin, network: str) -> str:
        """Names examples that were made on the network of that key."""
        return address(f"examples, {origin}", network=network, **self.model_dump(mode="json"))


class Transfer(Preparation):
    """Adversarial examples made on the plain network."""

    kind: Literal["transfer"] = "transfer"
    network: str
    attack: Attacked


class Task(Unit):
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

    @property
    def starts_from_transfer(self) -> bool:
        """Whether its examples are those made on the plain network.

        Without a defence, what attacks the victim attacks the plain network.
        """
        own = self.attack is not None and self.attack.spec.kind == "gradient"
        undefended = not self.victim.steps and own
        return self.cell.rung == "transfer" or (
            undefended and self.cell.rung in ("white-box", "adaptive", "persistent")
        )

    def examples_key(self, origin: Origin) -> str:
        """Names the examples that the cell starts from."""
        assert self.attack is not None
        network = self.victim.network if origin == "transfer" else self.victim.key
        return self.attack.key(origin, network)


Preparations = Network | Fit | Transfer
AnyUnit = Annotated[Preparations | Task, Field(discriminator="kind")]


def address(kind: str, **content: Any) -> str:
    """Content address of work, for this version of the package."""
    return content_address({"kind": kind, "format": FORMAT, "qnad-art": __version__, **content})
