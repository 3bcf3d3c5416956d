"""Settings of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qnad_art.circuits.response import MAX_UNITS
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import Bias
from qnad_art.layers.mappings import DEFAULT_MAPPING

Range = tuple[float, float]

SEARCHED = (
    *("fraction", "max_pairs", "relative_epsilon", "robust_weight"),
    *("headroom", "percentile", "learning_rate"),
)
EXECUTION = ("shots", "headroom", "percentile")
VALIDATION_IMAGES = 1000
"""Largest number of validation images."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search. A range (low, high) with low = high keeps a setting fixed.

    Args:
        epsilon: L∞ budget of the validation attack, in units of the network's input.
        trials: total number of trials, including those that the storage already holds.
        epochs: tuning epochs per trial: half of the default of ``Tuned``, since there are many
            trials.
        fraction, max_pairs, robust_weight, learning_rate: ranges of the settings of
            :class:`~qnad_art.crosstalk.tuned.Tuned`; the learning rate is on a logarithmic scale.
        relative_epsilon: range of the ratio of the tuning budget to ``epsilon``.
        headroom, percentile: ranges of the settings of :func:`qnad_art.convert`.
        shots: candidates for the shots per product; empty means the exact expectation.
        tuning: further settings of ``Tuned``, the same in all trials.
        device: as in :func:`qnad_art.device.catalogue.load_device`.
        bias, mapping: as in :class:`~qnad_art.defence.QNAD`.
        attack_steps: steps of PGD in validation.
        validation_fraction: fraction of the images held out for validation (at most 1,000 images).
        storage: SQLite file with finished trials, from which a search continues; ``None`` keeps
            them in memory.
        study: name of the study in the storage.
        seed: seed of everything random.
    """

    epsilon: float
    trials: int = 30
    epochs: int = 10
    fraction: Range = (0.05, 0.6)
    max_pairs: tuple[int, int] = (1, MAX_UNITS)
    relative_epsilon: Range = (0.5, 3.0)
    robust_weight: Range = (0.3, 1.0)
    learning_rate: Range = (0.003, 0.3)
    headroom: Range = (1.0, 1.5)
    percentile: Range = (99.0, 100.0)
    shots: tuple[int, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    device: str = DEFAULT_DEVICE
    bias: Bias | None = None
    mapping: str = DEFAULT_MAPPING
    attack_steps: int = 20
    validation_fraction: float = 0.2
    storage: str | Path | None = None
    study: str = "qnad"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "attack_steps"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)!r}; it must be a whole number from 1."
                )
        if not self.epsilon > 0:
            raise InvalidInputError(f"epsilon is {self.epsilon}; it must be above 0.")
        for name in SEARCHED:
            low, high = getattr(self, name)
            if not low <= high:
                raise InvalidInputError(f"{name} is ({low}, {high}); give (lowest, highest).")
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(
                f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1."
            )
        if taken := sorted({*SEARCHED, *EXECUTION, "epsilon", "epochs", "seed"} & {*self.tuning}):
            raise InvalidInputError(
                f"tuning holds {', '.join(taken)}, which {'are' if taken[1:] else 'is'} a setting "
                "of the search itself: a range with low = high keeps one fixed."
            )

    def recorded(self) -> dict[str, Any]:
        """The settings on which the result of a trial depends, as plain JSON."""
        left_out = {"trials", "storage", "study"}
        if self.mapping == DEFAULT_MAPPING:  # which earlier studies do not name
            left_out.add("mapping")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain
