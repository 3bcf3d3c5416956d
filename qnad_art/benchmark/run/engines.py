"""Where workers run: on this machine, on a Dask cluster, or on a Ray cluster, through joblib.

joblib places one *lane* on every slot of the engine. A lane keeps one worker process
(:mod:`qnad_art.benchmark.run.worker`) alive, which asks the run for tasks over TCP. So a task that
kills its process takes nothing else along on any engine, and when the run ends, however it ends,
the connections close and the workers are gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from qnad_art.benchmark.run.worker import CRASHED
from qnad_art.errors import DependencyError, InvalidInputError, QnadError, UnknownNameError
from qnad_art.plugins.discovery import VARIABLE

EngineName = Literal["local", "dask", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)


@dataclass(frozen=True)
class Engine:
    """A place for workers.

    Args:
        workers: how many.
        host: this machine's address as the workers see it.
        settings: of :func:`joblib.parallel_config`.
        gpu: whether workers use the GPU that they find; figures are the same everywhere only
            without.
    """

    workers: int
    host: str
    settings: dict[str, Any]
    gpu: bool = False

    def run(self, port: int, secret: str) -> None:
        """Keep all workers alive until the run at ``port`` is over; blocks.

        Raises:
            QnadError: workers cannot start, or cannot reach the run.
        """
        from joblib import Parallel, delayed, parallel_config

        allowed = os.environ.get(VARIABLE)
        lanes = [delayed(lane)(self.host, port, secret, allowed, self.gpu)] * self.workers
        # Ray's backend runs a single job in this process.
        jobs = max(2, self.workers)
        with parallel_config(**self.settings):
            ended = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="all")(lanes)
        for problem in filter(None, ended):
            raise QnadError(problem)


@contextmanager
def start_engine(
    name: str = "local",
    *,
    workers: int | None = None,
    address: str | None = None,
    gpu: bool = False,
) -> Iterator[Engine]:
    """Context with an engine.

    Args:
        name: one of :data:`ENGINES`.
        workers: processes at a time; ``None`` for one a core of this machine or of the cluster.
        address: of a running cluster (``tcp://scheduler:8786`` for Dask, ``host:6379`` or ``auto``
            for Ray); ``None`` for one of its own on this machine.
        gpu: as :class:`Engine`; not with Ray, which would hide the GPU from the workers.

    Raises:
        UnknownNameError: another name.
        DependencyError: the library is not installed.
        InvalidInputError: no such cluster, an address for the local engine, a GPU with Ray.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if workers is not None and workers < 1:
        raise InvalidInputError(f"{workers} workers can do nothing; give at least 1.")
    if gpu and name == "ray":
        raise InvalidInputError("Ray's workers get no GPU here; use the engine local or dask.")
    with {"local": _local, "dask": _dask, "ray": _ray}[name](workers, address) as engine:
        yield replace(engine, gpu=gpu)


def _library(module: str, engine: EngineName) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"The engine {engine} needs {module} ({error}): pip install 'qnad-art[{engine}]'."
        ) from error


@contextmanager
def _local(workers: int | None, address: str | None) -> Iterator[Engine]:
    if address is not None:
        raise InvalidInputError("The local engine takes no address; add --engine dask or ray.")
    # Lanes only wait for their processes: threads will do.
    yield Engine(workers or cores(), "127.0.0.1", {"backend": "threading"})


@contextmanager
def _dask(workers: int | None, address: str | None) -> Iterator[Engine]:
    distributed = _library("distributed", "dask")
    if address is None:
        cluster = distributed.LocalCluster(
            n_workers=workers or cores(), threads_per_worker=1, dashboard_address=None
        )
        with cluster, distributed.Client(cluster) as client:
            yield Engine(workers or cores(), "127.0.0.1", _dask_settings(client))
        return
    try:
        client = distributed.Client(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"No Dask scheduler answers at {address}: {error}.") from error
    with client:
        slots = sum(client.ncores().values())
        if not slots:
            raise InvalidInputError(f"The Dask cluster at {address} has no workers; start some.")
        host = _own_address(urlsplit(client.scheduler.address).hostname or "127.0.0.1")
        yield Engine(min(workers or slots, slots), host, _dask_settings(client))


def _dask_settings(client: Any) -> dict[str, Any]:
    return {"backend": "dask", "client": client}


@contextmanager
def _ray(workers: int | None, address: str | None) -> Iterator[Engine]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _library("ray", "ray")
    own: dict[str, Any] = {"num_cpus": max(2, workers or cores()), "include_dashboard": False}
    try:
        ray.init(
            **({"address": address} if address is not None else {"address": "local", **own}),
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"No Ray cluster at {address}: {error}.") from error
    try:
        _library("ray.util.joblib", "ray").register_ray()
        slots = int(ray.cluster_resources().get("CPU", 1))
        host = ray.util.get_node_ip_address()
        yield Engine(min(workers or slots, slots), host, {"backend": "ray"})
    finally:
        ray.shutdown()


def cores() -> int:
    """Cores that this process may use."""
    from joblib import cpu_count

    cores: int = cpu_count()
    return cores


def _own_address(host: str) -> str:
    """This machine's address on the way to ``host``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        address: str = probe.getsockname()[0]
    return address


def lane(host: str, port: int, secret: str, plugins: str | None, gpu: bool = False) -> str:
    """Keep one worker process alive until the run at ``host:port`` is over.

    Args:
        host, port, secret: of the run.
        plugins: its allow-list (:data:`~qnad_art.plugins.discovery.VARIABLE`), for clusters too.
        gpu: as :class:`Engine`.

    Returns:
        Why no worker can start here, empty if all went well. (It is not raised: joblib's Dask
        backend waits for ever for what raises.)
    """
    if gpu and not _gpu_is_there():
        return f"A worker on {socket.gethostname()} has no GPU that torch can use; leave out --gpu"
    before = ""
    while True:
        with tempfile.TemporaryFile() as errors:
            ended = subprocess.run(
                [sys.executable, "-m", "qnad_art.benchmark.run.worker", host, str(port), before],
                input=f"{secret}\n".encode(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_environment(plugins, gpu),
                # Python looks there first: never for modules of the folder that it was called in.
                cwd=Path(__file__).parents[3],
                check=False,
            )
            if ended.returncode == 0:
                return ""
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"exit status {ended.returncode}"
        if ended.returncode < 0:
            how = signal.Signals(-ended.returncode).name
        before = " ".join([how, *last])
        if ended.returncode > 0 and ended.returncode != CRASHED:
            return f"A worker on {socket.gethostname()} cannot start: {before}"


def _gpu_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _environment(plugins: str | None, gpu: bool) -> dict[str, str]:
    """As here, but for one thread and without a GPU, so that figures are the same everywhere."""
    paths = os.pathsep.join(path for path in sys.path if path)
    alone = _ONE_THREAD if gpu else {**_ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **alone, "PYTHONPATH": paths}
    environment.pop(VARIABLE, None)
    return environment if plugins is None else {**environment, VARIABLE: plugins}
