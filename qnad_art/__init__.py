"""QNAD for ART: pretrained PyTorch networks run as noisy quantum circuits, hardened by crosstalk.

>>> from qnad_art import QNAD, QuantumExecutedClassifier, convert
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qnad_art.version import __version__

if TYPE_CHECKING:
    from qnad_art.defence import QNAD as QNAD
    from qnad_art.device.catalogue import load_device as load_device
    from qnad_art.device.profile import DeviceProfile as DeviceProfile
    from qnad_art.estimator import QuantumExecutedClassifier as QuantumExecutedClassifier
    from qnad_art.network.conversion import convert as convert
    from qnad_art.network.module import AveragedDraws as AveragedDraws
    from qnad_art.network.module import QuantumExecutedModule as QuantumExecutedModule
    from qnad_art.network.settings import ExecutionSettings as ExecutionSettings
    from qnad_art.placement.plan import CrosstalkPlan as CrosstalkPlan

# Imported when first used: torch, ART and Qiskit take seconds.
_PUBLIC = {
    "AveragedDraws": "qnad_art.network.module",
    "CrosstalkPlan": "qnad_art.placement.plan",
    "DeviceProfile": "qnad_art.device",
    "ExecutionSettings": "qnad_art.network.settings",
    "QNAD": "qnad_art.defence",
    "QuantumExecutedClassifier": "qnad_art.estimator",
    "QuantumExecutedModule": "qnad_art.network.module",
    "convert": "qnad_art.network.conversion",
    "load_device": "qnad_art.device",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
