"""What a run asks of an engine: to carry out jobs somewhere, and to say when one has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
"""Environment of a process whose figures are the same on every machine."""


@dataclass(frozen=True)
class Job:
    """What a worker does in one go.

    Args:
        key: its name.
        needs: keys of the jobs that must be finished first. Keys that are not among the jobs of a
            run count as finished.
        text: what the worker is told, JSON; see :func:`qnad_art.benchmark.run.worker.carry_out`.
        label: its name for people.
        kind: groups jobs on an engine's dashboard.
        cost: expected seconds.
    """

    key: str
    needs: tuple[str, ...]
    text: str
    label: str
    kind: str = "cell"
    cost: float = 1.0


class Submitted(Protocol):
    """What the futures of all engines have in common."""

    def add_done_callback(self, call: Callable[[Any], object], /) -> Any:
        """Have ``call`` called with the future once its job has ended, in any thread."""

    def result(self) -> str:
        """The answer to the job, or what prevented it, raised."""


class Engine(ABC):
    """Carries out jobs, each in a process that does nothing else meanwhile.

    Args:
        awaited: what the first job waits for, for people.
        died: what futures raise where a worker died at their job, which can be tried again. Other
            exceptions mean that the job failed, and QnadError that the engine cannot go on.
        gpu: whether workers use a GPU.
        limit: how many jobs the engine is given at a time; ``None`` for all that are ready, so
            that its scheduler sees how much there is to do, and gives some to workers that join.
    """

    def __init__(
        self, awaited: str, *died: type[Exception], gpu: bool = False, limit: int | None = None
    ) -> None:
        self.awaited, self.died, self.gpu, self.limit = awaited, died, gpu, limit

    @abstractmethod
    def submit(self, job: Job) -> Submitted:
        """Have :func:`qnad_art.benchmark.run.worker.carry_out` answer a job on some worker."""

    @abstractmethod
    def workers(self) -> int:
        """How many there are now."""


def cores() -> int:
    """Cores that this process may use, as far as affinity and container limits tell."""
    from joblib import cpu_count

    cores: int = cpu_count()
    return cores
