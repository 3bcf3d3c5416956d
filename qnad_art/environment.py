"""What is installed, and whether it fits together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from qnad_art.errors import DependencyError


def import_torchvision() -> ModuleType:
    """The module ``torchvision``.

    Raises:
        DependencyError: it is missing, or was built for another torch than the one installed (its
            compiled operators then fail to load).
    """
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        installed = ", ".join(f"{name} {_installed(name)}" for name in ("torch", "torchvision"))
        raise DependencyError(
            f"torchvision cannot be imported beside the installed torch ({installed}): {error}. "
            "The two must be a matching pair from one index: reinstall both together, "
            "'pip install --force-reinstall torch torchvision', and do not mix a CPU-only torch "
            "with a torchvision from another index."
        ) from error
    module: ModuleType = torchvision
    return module


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
