"""What ``qnad bench`` can measure: names, titles and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from qnad_evaluations.performance.results import Result

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

TITLES = {
    "startup": "Import and command line, in fresh processes",
    "inference": "Inference against plain PyTorch",
    "memory": "Peak resident memory of a fresh process, three batches of inference",
    "attack": "ART's PGD-10 on the plain and on the quantum-executed classifier",
    "tuning": "A step of tuned crosstalk against a step of adversarial training of the weights",
    "conversion": "Conversion, calibration and plan of a network",
    "products": "Products a second: the same products with the same noise",
    "growth": "Growth with the number of weights and of qubits",
    "suite": "Throughput of a benchmark suite by workers",
}
"""By name, in the order in which they run."""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how long.

    Args:
        models: networks; ``None`` for those of the measurement.
        batches: images a batch; ``None`` likewise.
        precisions: of ``float32`` and ``bfloat16``, for inference.
        places: of ``cpu`` and ``cuda``; ``None`` for those at hand.
        rounds: at most, and for at most ``budget`` seconds a case once there are three.
        quick: one small network, small sizes, few rounds.
        device: quantum device.
    """

    models: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None
    precisions: tuple[Precision, ...] = PRECISIONS
    places: tuple[str, ...] | None = None
    rounds: int = 20
    budget: float = 30.0
    quick: bool = False
    device: str = DEFAULT_DEVICE

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise InvalidInputError(f"rounds is {self.rounds}; it must be at least 2.")
        if not self.budget > 0:
            raise InvalidInputError(f"budget is {self.budget}; give seconds above 0.")
        for batch in self.batches or ():
            if batch < 1:
                raise InvalidInputError(f"batch is {batch}; it must be at least 1.")
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise UnknownNameError("precision", precision, PRECISIONS)
        for place in self.places or ():
            if place not in ("cpu", "cuda"):
                raise UnknownNameError("place", place, ("cpu", "cuda"))

    def networks(self, usual: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the networks to measure."""
        return self.models or (usual[:1] if self.quick else usual)

    def sizes(self, usual: tuple[int, ...]) -> tuple[int, ...]:
        """Batches to measure; ``quick`` takes the middle one."""
        return self.batches or (usual[len(usual) // 2 :][:1] if self.quick else usual)

    def at_hand(self) -> tuple[str, ...]:
        """Places to measure on."""
        import torch

        gpu = torch.cuda.is_available()
        if self.places is None:
            return ("cpu", "cuda") if gpu else ("cpu",)
        if "cuda" in self.places and not gpu:
            raise InvalidInputError("There is no CUDA device here; leave out --on cuda.")
        return self.places


def measure(name: str, settings: Settings) -> Iterator[Result]:
    """Results of the measurement ``name`` as they come.

    Raises:
        UnknownNameError: no such measurement, network or device.
    """
    if name not in TITLES:
        raise UnknownNameError("measurement", name, TITLES)
    function: Callable[[Settings], Iterator[Result]] = import_module(
        f"qnad_evaluations.performance.{name}"
    ).measure
    yield from function(settings)
