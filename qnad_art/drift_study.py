"""How long a hardened network holds: accuracy against time since the calibration, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qnad_art.accuracy import (
    PGD_STEPS,
    Images,
    Labels,
    Proportion,
    count_correct,
    count_robust,
    pgd_examples,
)
from qnad_art.crosstalk.carried import GainOnward, WordsOnward
from qnad_art.device.drift import PARTS, DriftModel, hours_of
from qnad_art.errors import InvalidInputError
from qnad_art.estimator import QuantumExecutedClassifier

ALL = "all"
"""All parts of the drift together."""


@dataclass(frozen=True)
class DriftSettings:
    """What is measured.

    Args:
        spans: times since the calibration (:data:`~qnad_art.device.drift.SPANS`, or hours), all
            parts of the drift together.
        parts: parts that are measured alone as well, at the last of the spans.
        words: what is done about the drift, see :func:`~qnad_art.crosstalk.carried.carried`;
            ``"kept"`` is nothing, gain and offset included.
        draws: devices drawn for every point.
        epsilon, steps, restarts: L∞ budget, steps and random restarts of PGD.
        seed: seed of the first device drawn; the others follow.
    """

    spans: tuple[str | float, ...] = ("hours", "day", "month")
    parts: tuple[str, ...] = PARTS
    words: tuple[WordsOnward, ...] = ("kept",)
    draws: int = 5
    epsilon: float = 0.1
    steps: int = PGD_STEPS
    restarts: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInputError(f"draws is {self.draws}; it must be at least 1.")
        for span in self.spans:
            hours_of(span)
        for part in self.parts:
            DriftModel().scaled({part: 1.0})


@dataclass(frozen=True)
class DriftPoint:
    """One drawn device.

    Args:
        part: what drifted, :data:`ALL` or one of :data:`~qnad_art.device.drift.PARTS`.
        hours: since the calibration; 0 is the calibrated device itself.
        words: what was done about it.
        draw: number of the device.
        clean: correct without an attack.
        before: correct under PGD examples made on the calibrated device.
        of_the_day: correct under PGD on the drifted device itself, both kinds of gradients.
    """

    part: str
    hours: float
    words: str
    draw: int
    clean: Proportion
    before: Proportion
    of_the_day: Proportion

    @classmethod
    def from_dict(cls, content: Any) -> DriftPoint:
        """The point that :meth:`as_dict` wrote."""
        measured = {name: Proportion.from_dict(content[name]) for name in MEASURED}
        return cls(**{**content, **measured})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        own = {name: getattr(self, name) for name in ("part", "hours", "words", "draw")}
        measured = {name: getattr(self, name).as_dict() for name in MEASURED}
        return {**own, **measured}


MEASURED = ("clean", "before", "of_the_day")
"""The accuracies of a :class:`DriftPoint`."""


def drift_study(
    hardened: QuantumExecutedClassifier,
    x: Images,
    y: Labels,
    *,
    model: DriftModel,
    settings: DriftSettings,
    done: Sequence[DriftPoint] = (),
    on_point: Callable[[DriftPoint], object] = lambda point: None,
) -> list[DriftPoint]:
    """Accuracy of a hardened classifier on drifted devices.

    Args:
        hardened: as it was calibrated; unchanged.
        x, y: test images (N, …) and class indices (N,).
        model: how the device drifts.
        settings: what is measured.
        done: points of a study that was stopped; they are not measured again.
        on_point: called with every point as soon as it is known.

    Returns:
        The points; the first is the calibrated device.
    """
    epsilon, steps = settings.epsilon, settings.steps
    known = {(p.part, p.hours, p.words, p.draw): p for p in done}
    examples: list[Images] = []  # made when they are first needed

    def measure(
        classifier: QuantumExecutedClassifier, part: str, hours: float, words: str, draw: int
    ) -> DriftPoint:
        key = part, hours, words, draw
        if key in known:
            return known[key]
        if not examples:
            examples.append(pgd_examples(hardened, x, y, epsilon=epsilon, steps=steps))
        point = DriftPoint(
            *key,
            count_correct(classifier, x, y),
            count_correct(classifier, examples[0], y),
            count_robust(
                classifier, x, y, epsilon=epsilon, steps=steps, restarts=settings.restarts
            ),
        )
        on_point(point)
        return point

    points = [measure(hardened, ALL, 0.0, "kept", 0)]
    for part, hours, draw in _devices(settings):
        drift = model
        if part != ALL:
            drift = model.scaled({other: float(other == part) for other in PARTS})
        device = drift.drifted(hardened.module.device_profile, hours, seed=settings.seed + draw)
        for words in settings.words:
            gain: GainOnward = "kept" if words == "kept" else "recalibrated"
            there = hardened.on(device, words=words, gain=gain)
            points.append(measure(there, part, hours, words, draw))
    return points


def _devices(settings: DriftSettings) -> Iterator[tuple[str, float, int]]:
    """What drifts, hours and number of every device to draw."""
    hours = sorted({hours_of(span) for span in settings.spans})
    points = [(ALL, time) for time in hours] + [(part, hours[-1]) for part in settings.parts]
    for part, time in points:
        for draw in range(settings.draws):
            yield part, time, draw


def summarised(points: Sequence[DriftPoint]) -> list[dict[str, Any]]:
    """Mean, standard deviation over the devices, and the worst of each group of points.

    Groups are by part, hours and words; accuracies lie in [0, 1]. The standard deviation of a
    single device is unknown, ``None``.
    """
    groups: dict[tuple[str, float, str], list[DriftPoint]] = {}
    for point in points:
        groups.setdefault((point.part, point.hours, point.words), []).append(point)
    rows = []
    for (part, hours, words), members in groups.items():
        row: dict[str, Any] = {"part": part, "hours": hours, "words": words, "draws": len(members)}
        for name in MEASURED:
            values = [getattr(point, name).accuracy for point in members]
            deviation = float(np.std(values, ddof=1)) if values[1:] else None
            row[name] = {"mean": float(np.mean(values)), "sd": deviation, "worst": min(values)}
        rows.append(row)
    return rows
