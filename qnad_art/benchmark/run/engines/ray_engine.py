"""A Ray cluster: each job is a task of it, named on its dashboard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from qnad_art.benchmark.run.engines.engine import Engine, Job, WorkerDied, cores
from qnad_art.benchmark.run.worker import carry_out
from qnad_art.errors import InvalidInputError


@contextmanager
def start(workers: int | None, address: str | None, gpu: bool) -> Iterator[Engine]:
    """Context with the cluster at ``address``, or with one of its own on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    place: dict[str, Any] = {"address": address}
    if address is None:
        count = workers or cores()
        place = {"address": "local", "num_cpus": count, "include_dashboard": False}
    try:
        ray.init(**place, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"No Ray cluster at {address}: {error}.") from error
    try:
        yield RayEngine(gpu=gpu, limit=workers)
    finally:
        ray.shutdown()


class RayEngine(Engine):
    """Jobs as tasks of the Ray cluster that this process is connected with.

    Args:
        gpu: whether each job takes a GPU.
        limit: how many jobs the cluster is given at a time; ``None`` for all that are ready, so
            that nodes that join get some.
    """

    def __init__(self, *, gpu: bool = False, limit: int | None = None) -> None:
        self._task = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=0)(carry_out)
        self._counted = "GPU" if gpu else "CPU"
        super().__init__(
            f"Workers of the Ray cluster: {self.workers()}. They import PyTorch and ART …",
            gpu=gpu,
            limit=limit,
        )

    def submit(self, job: Job) -> Future[str]:
        """Submit a job under its name."""
        future: Future[str] = Future()
        task = self._task.options(name=job.label).remote(job.text).future()
        task.add_done_callback(partial(_settle, future))
        return future

    def workers(self) -> int:
        """How many jobs the cluster has room for now."""
        return int(ray.cluster_resources().get(self._counted, 0))


def _settle(future: Future[str], task: Future[str]) -> None:
    error = task.exception()
    if error is None:
        future.set_result(task.result())
    elif isinstance(error, RayError) and not isinstance(error, RayTaskError):
        future.set_exception(WorkerDied(str(error).partition("\n")[0]))
    else:
        future.set_exception(error)
