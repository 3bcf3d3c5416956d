"""How all cells of a benchmark are attacked and scored: one set of numbers for all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from qnad_art.benchmark.records import Record

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


class Protocol(Record):
    """Numbers of draws, samples and images.

    Args:
        draws: number of fresh draws on which adversarial examples are scored.
        selection_draws: number of draws on which an attacker compares its candidates; scoring
            never uses these draws.
        eot_samples: numbers of draws over which the adaptive rung averages a gradient, ascending;
            they are tried in turn until accuracy stops falling.
        query_averages: numbers of predictions that a query attack averages; each is a candidate.
        persistent_draws: number of times that the persistent rung submits the same example.
        seed_known_draws: number of noise draws that are given away, one after the other.
        batch_size: images per pass; noise is drawn per batch, so figures depend on it.
        resamples: number of resamples of the bootstrap.
        audit_images: largest number of images that are audited.
        audit_steps: number of steps of the iterative attack in the audit.
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
