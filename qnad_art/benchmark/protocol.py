"""How everything in a benchmark is attacked and scored: one set of numbers for all its cells."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from qnad_art.benchmark.records import Record

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


class Protocol(Record):
    """Numbers of draws, samples and images.

    Args:
        draws: fresh draws that adversarial examples are scored on.
        selection_draws: draws on which an attacker compares its candidates; never scored on.
        eot_samples: draws a gradient is averaged over in the adaptive rung, ascending; raised
            until accuracy stops falling.
        query_averages: predictions that a query attack averages, each a candidate.
        persistent_draws: submissions of the same example in the persistent rung.
        seed_known_draws: noise draws that are given away, one after the other.
        batch_size: images a pass; noise is drawn a batch, so figures depend on it.
        resamples: of the bootstrap.
        audit_images: at most so many images are audited.
        audit_steps: of the iterative attack in the audit.
    """

    draws: Count = 10
    selection_draws: Count = 10
    eot_samples: Counts = (1, 5, 10, 20, 40)
    query_averages: Counts = (1, 10)
    persistent_draws: Count = 50
    seed_known_draws: Count = 3
    batch_size: Count = 250
    resamples: Annotated[int, Field(ge=100)] = 2000
    audit_images: Count = 100
    audit_steps: Annotated[int, Field(ge=4)] = 20

    @field_validator("eot_samples", "query_averages")
    @classmethod
    def _ascending(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if list(counts) != sorted(set(counts)):
            raise ValueError(f"{counts} must ascend, each number once.")
        return counts
