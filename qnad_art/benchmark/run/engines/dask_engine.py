"""A Dask cluster: each job is a task of its scheduler, named on its dashboard."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from distributed import Client, KilledWorker, LocalCluster

from qnad_art.benchmark.run.engines.engine import ONE_THREAD, Engine, Job, WorkerDied, cores
from qnad_art.benchmark.run.worker import carry_out, prepare
from qnad_art.errors import InvalidInputError, QnadError

_GPU = "GPU"


@contextmanager
def start(workers: int | None, address: str | None, gpu: bool) -> Iterator[Engine]:
    """Context with the cluster at ``address``, or with one of its own on this machine."""
    if address is not None:
        with _connected(address) as client:
            yield DaskEngine(client, address, gpu=gpu, limit=workers)
        return
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    cluster = LocalCluster(
        n_workers=workers or cores(),
        threads_per_worker=1,
        memory_limit=0,  # none
        dashboard_address=None,
        resources={_GPU: 1} if gpu else None,
        env={**ONE_THREAD, **hidden},
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield DaskEngine(client, cluster.scheduler_address, gpu=gpu)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"No Dask scheduler answers at {address}: {error}.") from error


class DaskEngine(Engine):
    """Jobs as tasks of a Dask scheduler, which tries a task again when its worker dies.

    Args:
        client: of the scheduler.
        address: of the scheduler, for people.
        gpu: whether each job takes one of a worker's resource ``GPU``.
        limit: how many jobs the scheduler is given at a time; ``None`` for all that are ready, so
            that workers that join get some, and adaptive clusters see how many they need.
    """

    def __init__(
        self, client: Client, address: str, *, gpu: bool = False, limit: int | None = None
    ) -> None:
        self._client, self._resources = client, {_GPU: 1} if gpu else None
        # A future that nobody holds is released, and its task cancelled.
        self._tasks: set[Any] = set()
        threads = self._threads()
        awaited = f"Workers of the Dask cluster at {address}: {len(threads)}."
        if not threads and gpu:
            awaited += f" Start some with dask worker --resources '{_GPU}=1'."
        if any(count > 1 for count in threads.values()):
            awaited += " Each works on one cell at a time: start them with --nthreads 1."
        super().__init__(awaited, gpu=gpu, limit=limit)
        client.run(prepare, wait=False)

    def submit(self, job: Job) -> Future[str]:
        """Submit a job under its name, which another run must not share."""
        name = f"{job.label} ({secrets.token_hex(4)})"
        task = self._client.submit(
            carry_out, job.text, key=(job.kind, name), pure=False, resources=self._resources
        )
        self._tasks.add(task)
        future: Future[str] = Future()
        task.add_done_callback(partial(self._settle, future))
        return future

    def workers(self) -> int:
        """How many worker processes the cluster has now."""
        return len(self._threads())

    def _threads(self) -> dict[str, int]:
        """Threads by worker, of those that can take jobs."""
        workers = self._client.scheduler_info()["workers"].items()
        needed = self._resources or {}
        return {
            address: worker["nthreads"]
            for address, worker in workers
            if needed.keys() <= worker["resources"].keys()
        }

    def _settle(self, future: Future[str], task: Any) -> None:
        self._tasks.discard(task)
        try:
            future.set_result(task.result())
        except KilledWorker as error:
            future.set_exception(WorkerDied(str(error)))
        except CancelledError as error:
            future.set_exception(QnadError(f"The Dask scheduler has gone: {error}"))
        except Exception as error:
            future.set_exception(error)
