"""QNAD for ART: pretrained PyTorch networks run as noisy quantum circuits, hardened by crosstalk.

>>> from qnad_art import QNAD, QuantumExecutedClassifier, convert
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnad_art.lazy import lazy_names
from qnad_art.version import __version__

if TYPE_CHECKING:
    from qnad_art import benchmark as benchmark
    from qnad_art import crosstalk as crosstalk
    from qnad_art import datasets as datasets
    from qnad_art import device as device
    from qnad_art import engines as engines
    from qnad_art import errors as errors
    from qnad_art import models as models
    from qnad_art import pretrained as pretrained
    from qnad_art import testing as testing
    from qnad_art.datasets.dataset import load_dataset as load_dataset
    from qnad_art.defence import QNAD as QNAD
    from qnad_art.device.catalogue import load_device as load_device
    from qnad_art.device.profile import DeviceProfile as DeviceProfile
    from qnad_art.estimator import QuantumExecutedClassifier as QuantumExecutedClassifier
    from qnad_art.network.conversion import convert as convert
    from qnad_art.network.module import AveragedDraws as AveragedDraws
    from qnad_art.network.module import QuantumExecutedModule as QuantumExecutedModule
    from qnad_art.network.settings import ExecutionSettings as ExecutionSettings
    from qnad_art.placement.plan import CrosstalkPlan as CrosstalkPlan
    from qnad_art.pretrained import load_pretrained as load_pretrained

_LAZY = {
    "AveragedDraws": "qnad_art.network.module",
    "CrosstalkPlan": "qnad_art.placement.plan",
    "DeviceProfile": "qnad_art.device.profile",
    "ExecutionSettings": "qnad_art.network.settings",
    "QNAD": "qnad_art.defence",
    "QuantumExecutedClassifier": "qnad_art.estimator",
    "QuantumExecutedModule": "qnad_art.network.module",
    "benchmark": "qnad_art.benchmark",
    "convert": "qnad_art.network.conversion",
    "crosstalk": "qnad_art.crosstalk",
    "datasets": "qnad_art.datasets",
    "device": "qnad_art.device",
    "engines": "qnad_art.engines",
    "errors": "qnad_art.errors",
    "load_dataset": "qnad_art.datasets.dataset",
    "load_device": "qnad_art.device.catalogue",
    "load_pretrained": "qnad_art.pretrained",
    "models": "qnad_art.models",
    "pretrained": "qnad_art.pretrained",
    "testing": "qnad_art.testing",
}
__all__ = [*_LAZY, "__version__"]
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
