"""A Ray cluster: each job is one of its tasks, named on its dashboard."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import exceptions

from qnad_art.benchmark.run.engines.engine import Engine, Job, Submitted, cores
from qnad_art.benchmark.run.worker import carry_out, prepare
from qnad_art.errors import InvalidInputError


@contextmanager
def start(workers: int | None, address: str | None, gpu: bool) -> Iterator[Engine]:
    """Context with the cluster at ``address``, or with a new one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    place: dict[str, Any] = {"address": address}
    if address is None:
        own = {"num_cpus": workers or cores(), "include_dashboard": False}
        place = {"address": "local", **own}
    try:
        ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"No Ray cluster at {address}: {error}.") from error
    try:
        yield RayEngine(gpu=gpu, limit=workers)
    finally:
        ray.shutdown()


class RayEngine(Engine):
    """Jobs as tasks of the Ray cluster that this process is connected to.

    Args:
        gpu: whether each job takes a GPU.
        limit: see :class:`~qnad_art.benchmark.run.engines.engine.Engine`.
    """

    def __init__(self, *, gpu: bool = False, limit: int | None = None) -> None:
        self._counted = "GPU" if gpu else "CPU"
        awaited = f"Workers of the Ray cluster: {self.workers()}. They import PyTorch and ART …"
        died = (exceptions.WorkerCrashedError, exceptions.NodeDiedError)
        lost = (exceptions.ObjectLostError, exceptions.OutOfMemoryError)
        super().__init__(awaited, *died, *lost, gpu=gpu, limit=limit)
        task = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=0)
        self._task, first = task(carry_out), task(prepare)
        for _ in range(self.workers()):
            first.remote()

    def submit(self, job: Job) -> Submitted:
        """Submit a job under its name."""
        task: Submitted = self._task.options(name=job.label).remote(job.text).future()
        return task

    def workers(self) -> int:
        """Number of jobs that the cluster has room for now."""
        return int(ray.cluster_resources().get(self._counted, 0))
