"""What a benchmark is made of: cells (what to measure) and results (what was measured)."""

from __future__ import annotations

import base64
import hashlib
import json
from math import prod
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Rung = Literal[
    "transfer", "white-box", "adaptive", "surrogate", "seed-known", "black-box", "persistent"
]
RUNGS: tuple[Rung, ...] = get_args(Rung)
Kind = Literal["clean", "attack", "audit"]
Verdict = Literal["pass", "fail", "not run"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Key = Annotated[str, Field(pattern=r"^\w[\w.-]{0,79}$")]
"""Usually made by :func:`content_address`. It names a file, so it must not lead elsewhere."""
Bools = npt.NDArray[np.bool_]


class Record(BaseModel):
    """A frozen record that accepts no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(Record):
    """One thing to measure, by the labels that the suite gives to its parts.

    Only attack cells have an ``attack`` and a ``rung``. Their ``eps`` is ``None`` if the attack
    looks for the smallest perturbation.
    """

    kind: Kind
    model: str
    data: str
    device: str
    defence: str
    seed: int
    attack: str | None = None
    eps: float | None = None
    rung: Rung | None = None

    @property
    def where(self) -> tuple[str, str, str, str, int]:
        """Model, data, device, defence and seed: what is audited as a whole."""
        return self.model, self.data, self.device, self.defence, self.seed

    def __str__(self) -> str:
        budget = None if self.eps is None else f"ε {self.eps:.4g}"
        attacked = (self.attack, budget, self.rung) if self.kind == "attack" else (self.kind,)
        parts = (self.model, self.device, self.defence, *attacked, f"seed {self.seed}")
        return " · ".join(part for part in parts if part)


class Bits(Record):
    """A boolean array, packed for JSON."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data: str

    @model_validator(mode="after")
    def _check_length(self) -> Bits:
        # Otherwise a number in a damaged file could claim memory for bits that are not there.
        if len(base64.b64decode(self.data, validate=True)) != -(-prod(self.shape) // 8):
            raise ValueError(f"{len(self.data)} characters do not hold bits of shape {self.shape}")
        return self

    @classmethod
    def pack(cls, array: Bools) -> Bits:
        """Pack an array of any shape."""
        packed = np.packbits(np.asarray(array, dtype=bool).ravel())
        return cls(shape=array.shape, data=base64.b64encode(packed.tobytes()).decode())

    def unpack(self) -> Bools:
        """The array."""
        packed = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=np.uint8)
        return np.unpackbits(packed, count=prod(self.shape)).astype(bool).reshape(self.shape)


class Interval(Record):
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class CurvePoint(Record):
    """Accuracy under the adaptive attack if it averages gradients over ``samples`` draws."""

    samples: int
    gradients: Literal["true", "unsaturated"]
    accuracy: Fraction


class Gate(Record):
    """One gate of the audit: what it demands, whether it holds, and the figures behind it."""

    name: str
    verdict: Verdict
    demand: str
    figures: dict[str, float | None] = {}
    reason: str = ""


class Plan(Record):
    """The crosstalk plan that was in force, in brief."""

    strategy: str
    requested: float
    achieved: float
    injected: int


class Provenance(Record):
    """What a figure depends on in addition to the cell.

    ``crosstalk_model`` is that of the device; quantum results from before there were several have
    none, and are of ``paper``.
    """

    device_hash: str | None
    crosstalk_model: str | None = None
    shots: int | None
    plan: Plan | None
    data_hash: str
    weights_hash: str
    seed: int
    versions: dict[str, str]
    gpu: str | None = None


class Result(Record):
    """A measured cell.

    Args:
        key: content address of the task, see :func:`content_address`.
        accuracy: the headline figure of the cell's rung: mean over images and draws, or on the
            rung ``persistent`` the share of images that are classified right in every draw.
        majority: accuracy of the majority vote over the draws.
        every_draw: share of images that are classified right in every draw.
        images, draws: numbers that the figures rest on (one draw for a deterministic defence).
        correct: (draws, images), whether the image was classified right.
        votes: (images,), whether the majority vote is right.
        norm: the norm that ε bounds (``"inf"``, ``"2"``, …), for attacks with a budget.
        single_step: whether the attack takes only one step.
        curve: accuracies on the adaptive rung by number of draws.
        gates: gates of an audit cell; the figures above are then those of the clean images.
        perturbation: median L∞ and L2 norm of the perturbations.
        gradients, queries: total number of images that the attack passed through its target with
            gradients and without.
        seconds: wall time of the cell.
    """

    format: Literal[1] = 1
    key: Key
    cell: Cell
    accuracy: Interval
    majority: Interval
    every_draw: Interval
    images: int
    draws: int
    correct: Bits
    votes: Bits
    norm: str | None = None
    single_step: bool = False
    curve: tuple[CurvePoint, ...] = ()
    gates: tuple[Gate, ...] = ()
    perturbation: dict[Literal["linf", "l2"], float] = {}
    gradients: int = 0
    queries: int = 0
    seconds: float
    provenance: Provenance

    @model_validator(mode="after")
    def _check_shapes(self) -> Result:
        expected = (self.draws, self.images), (self.images,)
        if (self.correct.shape, self.votes.shape) != expected:
            raise ValueError(f"outcomes are not of {self.draws} draws and {self.images} images")
        return self


def content_address(content: Any) -> str:
    """A hash that names JSON content; the order of its keys does not matter."""
    text = json.dumps(content, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
