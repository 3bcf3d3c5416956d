"""What a call would cost on the device, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Estimate by the device's gate times; queueing, compilation and transfers are not in it.

    Args:
        products: that are multiplied.
        circuits: different circuits (each is run with many angles).
        executions: circuits with their angles filled in.
        shots: of all executions.
        jobs: that they are sent in.
        seconds: gates, measurements and the delay between shots.
    """

    products: int
    circuits: int
    executions: int
    shots: int
    jobs: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.products:,} products in {self.circuits:,} circuits, {self.executions:,} "
            f"executions, {self.shots:,} shots, {self.jobs:,} jobs, about {self.seconds:,.1f} s of "
            "the device"
        )
