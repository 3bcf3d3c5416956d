"""The engines by name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module
from typing import Literal, get_args

from qnad_art.benchmark.run.engines.engine import Engine
from qnad_art.errors import DependencyError, InvalidInputError, UnknownNameError

EngineName = Literal["local", "dask", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def start_engine(
    name: str = "local",
    *,
    workers: int | None = None,
    address: str | None = None,
    gpu: bool = False,
) -> AbstractContextManager[Engine]:
    """Context with an engine.

    Args:
        name: one of :data:`ENGINES`.
        workers: number of worker processes; ``None`` for one per core of this machine, or for all
            workers of a cluster, including those that join during the run.
        address: address of a running cluster (``tcp://scheduler:8786`` for Dask, ``host:6379`` or
            ``auto`` for Ray); ``None`` for processes on this machine.
        gpu: whether workers use a GPU. Workers of a Dask cluster must have the resource ``GPU``;
            on Ray each job takes one.

    Raises:
        UnknownNameError: there is no such engine.
        DependencyError: the library is not installed.
        InvalidInputError: the cluster does not answer, or the local engine is given an address.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if workers is not None and workers < 1:
        raise InvalidInputError(f"{workers} workers cannot do anything; give at least 1.")
    if name == "local" and address is not None:
        raise InvalidInputError("The local engine takes no address; add --engine dask or ray.")
    try:
        adapter = import_module(f"qnad_art.benchmark.run.engines.{name}_engine")
    except ImportError as error:
        raise DependencyError(
            f"The engine {name} cannot be imported ({error}): pip install 'qnad-art[{name}]'."
        ) from error
    started: AbstractContextManager[Engine] = adapter.start(workers, address, gpu)
    return started
