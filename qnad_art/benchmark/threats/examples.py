"""Adversarial examples as the rungs make them, and the interface of their store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from qnad_art.benchmark.records import CurvePoint, Record
from qnad_art.benchmark.threats.victim import Images
from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import parse_json

Origin = Literal["transfer", "white-box", "adaptive", "surrogate", "seed-known", "black-box"]


class _Cost(Record):
    """The part of examples that is not an array."""

    curve: tuple[CurvePoint, ...]
    gradients: int
    queries: int


@dataclass(frozen=True)
class Examples:
    """Adversarial examples, and what they cost.

    Args:
        x: (N, …); on the rung ``seed-known`` (draws, N, …), one set per known draw.
        outputs: on the rung ``seed-known``, the logits (draws, N, classes) in the known draws.
        curve: on the adaptive rung, the accuracy under each candidate on the selection draws.
        gradients, queries: images passed through the attacked network with and without gradients.
    """

    x: Images
    outputs: Images | None = None
    curve: tuple[CurvePoint, ...] = ()
    gradients: int = 0
    queries: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays that NumPy saves without pickle; see :meth:`from_arrays`."""
        cost = _Cost(curve=self.curve, gradients=self.gradients, queries=self.queries)
        found = {"x_adv": self.x, "record": np.array(json.dumps(cost.model_dump()))}
        return found if self.outputs is None else {**found, "outputs": self.outputs}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Examples:
        """Read what :meth:`arrays` returned; raises ArtifactError for anything else."""
        images, outputs = arrays.get("x_adv"), arrays.get("outputs")
        try:
            record = _Cost.model_validate(parse_json(str(arrays["record"]), "their record"))
            if images is None or images.dtype.kind != "f":
                raise ValueError("no images")
            if outputs is not None and outputs.dtype.kind != "f":
                raise ValueError("outputs that are not numbers")
        except (ArtifactError, KeyError, ValueError) as error:
            raise ArtifactError(f"These are not adversarial examples: {error}.") from error
        return cls(images, outputs, **dict(record))


class ExampleStore(Protocol):
    """Keeps examples for cells that need the same ones.

    Examples of the origin ``transfer`` depend on the plain network, the attack, ε, the images, the
    protocol and the seed; all others also depend on the victim. Cells of the rung ``persistent``
    use those of ``adaptive`` (or ``black-box``), and ``adaptive`` starts from ``white-box``.
    """

    def load(self, origin: Origin) -> Examples | None:
        """The examples that were saved, if any."""

    def save(self, origin: Origin, examples: Examples) -> None:
        """Keep examples."""
