"""What a run asks of an engine: to carry out jobs somewhere, and to say when one has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)
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


class WorkerDied(Exception):
    """The process that carried out a job is gone; the message says how it ended."""


class Engine(ABC):
    """Carries out jobs, each in a process that does nothing else meanwhile.

    Args:
        awaited: what the first job waits for, for people.
        gpu: whether workers use a GPU.
        limit: how many jobs the engine is given at a time; ``None`` for all that are ready, which
            shows a scheduler how much there is to do.
    """

    def __init__(self, awaited: str, *, gpu: bool = False, limit: int | None = None) -> None:
        self.awaited, self.gpu, self.limit = awaited, gpu, limit

    @abstractmethod
    def submit(self, job: Job) -> Future[str]:
        """Have a job carried out by :func:`qnad_art.benchmark.run.worker.carry_out`.

        Returns:
            Its answer. The future raises :class:`WorkerDied` where the job can be tried again, and
            QnadError where the engine cannot go on.
        """

    @abstractmethod
    def workers(self) -> int:
        """How many processes there are now."""


def cores() -> int:
    """Cores that this process may use, as far as affinity and container limits tell."""
    from joblib import cpu_count

    cores: int = cpu_count()
    return cores
