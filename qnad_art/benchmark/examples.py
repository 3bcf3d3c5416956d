"""Adversarial examples as the rungs make them, and where those are kept that cells share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from qnad_art.benchmark.records import CurvePoint
from qnad_art.benchmark.victim import Images

Origin = Literal["transfer", "white-box", "adaptive", "surrogate", "seed-known", "black-box"]


@dataclass(frozen=True)
class Examples:
    """Adversarial examples, and what they cost.

    Args:
        x: (N, …); of the rung ``seed-known`` (draws, N, …), one set a known draw.
        outputs: of the rung ``seed-known``: logits (draws, N, classes) in the draws they are for.
        curve: of the adaptive rung: accuracy under every candidate alone, on selection draws.
        gradients, queries: images passed through the attacked network, with gradients or without.
    """

    x: Images
    outputs: Images | None = None
    curve: tuple[CurvePoint, ...] = ()
    gradients: int = 0
    queries: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays that NumPy saves without pickle; see :meth:`from_arrays`."""
        record = {
            "curve": [point.model_dump() for point in self.curve],
            "gradients": self.gradients,
            "queries": self.queries,
        }
        found = {"x_adv": self.x, "record": np.array(json.dumps(record))}
        return found if self.outputs is None else {**found, "outputs": self.outputs}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Examples:
        """From what :meth:`arrays` gave."""
        record = json.loads(str(arrays["record"]))
        curve = tuple(CurvePoint(**point) for point in record.pop("curve"))
        outputs = arrays.get("outputs")
        return cls(arrays["x_adv"], outputs, curve, **record)


class ExampleStore(Protocol):
    """Where examples are kept for cells that need the same.

    Examples of the origin ``transfer`` depend on the plain network, the attack, ε, the images, the
    protocol and the seed; all others on the victim too. Cells of the rung ``persistent`` use those
    of ``adaptive`` (or ``black-box``), and ``adaptive`` starts from ``white-box``.
    """

    def load(self, origin: Origin) -> Examples | None:
        """What was saved, if anything."""
        ...

    def save(self, origin: Origin, examples: Examples) -> None:
        """Keep examples."""
        ...
