"""Checks of installed packages, and changes of environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from qnad_art.errors import DependencyError


def import_torchvision() -> ModuleType:
    """The module ``torchvision``.

    Raises:
        DependencyError: it is missing, or was built for another torch than the installed one, so
            that its compiled operators fail to load.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        installed = ", ".join(f"{name} {_installed(name)}" for name in ("torch", "torchvision"))
        raise DependencyError(
            f"torchvision cannot be imported with the installed torch ({installed}): {error}. "
            "The two must be a matching pair from one index: reinstall both together, "
            "'pip install --force-reinstall torch torchvision', and do not mix a CPU-only torch "
            "with a torchvision from another index."
        ) from error
    module: ModuleType = torchvision
    return module


@contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Context in which environment variables have other values; ``None`` removes one."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
