"""The interface of engines, which carry out jobs somewhere and tell when one has ended."""

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
"""Environment of a worker process; with one thread, figures are the same on every machine."""


@dataclass(frozen=True)
class Job:
    """A unit of work for a worker.

    Args:
        key: name of the job.
        needs: keys of the jobs that must be finished first. Keys that are not among the jobs of a
            run count as finished.
        text: JSON for the worker, see :func:`qnad_art.benchmark.run.worker.carry_out`.
        label: name of the job for people.
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
    """The common interface of the futures of all engines."""

    def add_done_callback(self, call: Callable[[Any], object], /) -> Any:
        """Have ``call`` called with the future once its job has ended, in any thread."""

    def result(self) -> str:
        """The answer to the job; raises the error if there is none."""


class Engine(ABC):
    """Carries out jobs, each in a process that does nothing else meanwhile.

    Args:
        awaited: line that tells people what the first job waits for.
        died: exceptions that futures raise if a worker died at the job, which can be retried. Other
            exceptions mean that the job failed, and QnadError that the engine cannot continue.
        gpu: whether workers use a GPU.
        limit: number of jobs that the engine is given at a time; ``None`` for all that are ready,
            so that its scheduler knows how much there is to do, and gives jobs to new workers.
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
        """Current number of workers."""


def cores() -> int:
    """Number of cores that this process may use, given affinity and container limits."""
    from joblib import cpu_count

    cores: int = cpu_count()
    return cores
