"""A Dask cluster: each job is a task of its scheduler, named on its dashboard."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, KilledWorker, LocalCluster

from qnad_art.benchmark.run.engines.engine import ONE_THREAD, Engine, Job, Submitted, cores
from qnad_art.benchmark.run.worker import carry_out, prepare
from qnad_art.errors import InvalidInputError


@contextmanager
def start(workers: int | None, address: str | None, gpu: bool) -> Iterator[Engine]:
    """Context with the cluster at ``address``, or with a new one on this machine."""
    if address is None:
        cluster = LocalCluster(
            n_workers=workers or cores(),
            threads_per_worker=1,
            memory_limit=0,  # no limit
            resources={"GPU": 1} if gpu else None,
            env=ONE_THREAD,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield DaskEngine(client, gpu=gpu)
        return
    try:
        client = Client(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"No Dask scheduler answers at {address}: {error}.") from error
    with client:
        yield DaskEngine(client, gpu=gpu, limit=workers)


class DaskEngine(Engine):
    """Jobs as tasks of a Dask scheduler, which retries a task when its worker dies.

    Args:
        client: client of the scheduler.
        gpu: whether each job takes one unit of a worker's resource ``GPU``.
        limit: see :class:`~qnad_art.benchmark.run.engines.engine.Engine`.
    """

    def __init__(self, client: Client, *, gpu: bool = False, limit: int | None = None) -> None:
        self._client, self._resources = client, {"GPU": 1} if gpu else None
        awaited = f"Workers of the Dask cluster: {self.workers()}. They import PyTorch and ART …"
        super().__init__(awaited, KilledWorker, gpu=gpu, limit=limit)
        client.run(prepare, on_error="ignore")

    def submit(self, job: Job) -> Submitted:
        """Submit a job under its name, which no other run may share."""
        name = f"{job.label} ({secrets.token_hex(4)})"
        task: Submitted = self._client.submit(
            carry_out, job.text, key=(job.kind, name), pure=False, resources=self._resources
        )
        return task

    def workers(self) -> int:
        """Current number of worker processes of the cluster."""
        return len(self._client.nthreads())
