"""Measure one cell: adversarial examples of its rung, scored on fresh draws, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Bits, Cell, CurvePoint, Gate, Interval, Provenance, Result
from qnad_art.benchmark.statistics.intervals import accuracy_interval, wilson
from qnad_art.benchmark.threats.ladder import Attack, Examples, ExampleStore, adversarial_examples
from qnad_art.benchmark.threats.scoring import Score, score
from qnad_art.benchmark.threats.victim import Images, Labels, derived
from qnad_art.errors import InvalidInputError


@dataclass(frozen=True)
class Measured:
    """The figures of a cell; the fields are those of :class:`~.records.Result`.

    ``arrays`` is kept on request and is not part of the result: ``predicted`` (draws, N), class
    indices, and for attacks ``x_adv`` (N, …), on the rung ``seed-known`` (draws, N, …).
    """

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
    perturbation: Mapping[Literal["linf", "l2"], float] = field(default_factory=dict)
    gradients: int = 0
    queries: int = 0
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def result(self, key: str, cell: Cell, *, seconds: float, provenance: Provenance) -> Result:
        """The result, with the fields that only the runner knows."""
        measured = {name: value for name, value in vars(self).items() if name != "arrays"}
        return Result(key=key, cell=cell, seconds=seconds, provenance=provenance, **measured)


def measure(
    victim: PyTorchClassifier,
    plain: PyTorchClassifier,
    cell: Cell,
    attack: Attack | None,
    x: Images,
    y: Labels,
    *,
    protocol: Protocol,
    seed: int,
    reuse: ExampleStore | None = None,
) -> Measured:
    """Measure a cell.

    Args:
        victim, plain: the defended classifier, and the network that it defends.
        cell: the cell, which says its kind, rung and ε.
        attack: attack of an attack cell; ``None`` for other cells.
        x, y: test images (N, …) and class indices (N,). An audit takes the first of them.
        protocol: numbers of draws and samples.
        seed: seed of everything random; give all defences the same, so that they meet the same
            attacks. The same seed gives the same figures, whatever ran before.
        reuse: examples made before, see :class:`~.threats.ExampleStore`.
    """
    if (cell.kind == "attack") != (attack is not None):
        raise InvalidInputError(
            f"A cell of kind {cell.kind!r} with attack {attack}: attack cells have one, no other."
        )
    fresh = partial(score, victim, seed=derived(seed, "score"), batch_size=protocol.batch_size)
    if cell.kind == "audit":
        from qnad_art.benchmark.audit.audit import audit_cell

        x, y = x[: protocol.audit_images], y[: protocol.audit_images]
        figures = _summary(fresh(x, y, draws=protocol.draws), protocol, seed)
        return replace(figures, gates=audit_cell(victim, x, y, protocol, seed))
    if attack is None:
        return _summary(fresh(x, y, draws=protocol.draws), protocol, seed)
    if cell.rung is None:
        raise InvalidInputError("An attack cell needs a rung.")
    examples = adversarial_examples(
        victim,
        plain,
        attack,
        x,
        y,
        rung=cell.rung,
        eps=cell.eps,
        protocol=protocol,
        seed=seed,
        store=reuse,
    )
    persistent = cell.rung == "persistent"
    if examples.outputs is not None:
        found = Score.of(examples.outputs, y)
    else:
        draws = protocol.persistent_draws if persistent else protocol.draws
        found = fresh(examples.x, y, draws=draws)
    figures = _summary(found, protocol, seed)
    return replace(
        figures,
        accuracy=figures.every_draw if persistent else figures.accuracy,
        norm=attack.norm if cell.eps is not None else None,
        single_step=attack.single_step,
        curve=examples.curve if cell.rung == "adaptive" else (),
        perturbation=_perturbation(examples, x),
        gradients=examples.gradients,
        queries=examples.queries,
        arrays={"x_adv": examples.x, **figures.arrays},
    )


def _summary(found: Score, protocol: Protocol, seed: int) -> Measured:
    """The figures of a score."""
    images = len(found.y)
    return Measured(
        accuracy=accuracy_interval(
            found.correct, seed=derived(seed, "bootstrap"), resamples=protocol.resamples
        ),
        majority=wilson(int(found.votes.sum()), images),
        every_draw=wilson(int(found.every_draw.sum()), images),
        images=images,
        draws=found.draws,
        correct=Bits.pack(found.correct),
        votes=Bits.pack(found.votes),
        arrays={"predicted": found.predicted},
    )


def _perturbation(examples: Examples, x: Images) -> dict[Literal["linf", "l2"], float]:
    """Median norms of the perturbation over images."""
    change = (examples.x - x).reshape(-1, x[0].size)
    return {
        "linf": float(np.median(np.abs(change).max(1))),
        "l2": float(np.median(np.linalg.norm(change, axis=1))),
    }
