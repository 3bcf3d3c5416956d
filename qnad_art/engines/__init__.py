"""Execution engines: how the products of a layer are really run.

The default needs no engine: layers run *compiled* (:mod:`qnad_art.layers.quantum_layer`). An engine
replaces that for chosen layers, e.g. by circuits on a simulator. Gradients through an engine are
those of the compiled layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Protocol

from qnad_art.errors import UnknownNameError
from qnad_art.lazy import lazy_names
from qnad_art.network.modes import setting
from qnad_art.plugins.discovery import call_plugin

if TYPE_CHECKING:
    from torch import Tensor

    from qnad_art.device.profile import DeviceProfile
    from qnad_art.engines.aer import AerEngine as AerEngine
    from qnad_art.engines.circuit import CircuitEngine as CircuitEngine
    from qnad_art.layers.quantum_layer import QuantumLayer
    from qnad_art.network.module import QuantumExecutedModule

_LAZY = {"AerEngine": "qnad_art.engines.aer", "CircuitEngine": "qnad_art.engines.circuit"}
__all__ = [*_LAZY, "Engine", "build_engine", "run_on"]
__getattr__, __dir__ = lazy_names(__name__, _LAZY)


class Engine(Protocol):
    """Runs one layer: ``engine(layer, x)`` has the layer's output shape."""

    def __call__(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """Output of ``layer`` on ``x``."""


def build_engine(name: str, device: DeviceProfile, **settings: Any) -> CircuitEngine:
    """An engine by name (``"aer"``, or a plugin's) that runs circuits with a device's noise.

    Raises:
        UnknownNameError: no such engine.
        PluginError: the plugin that has the name is broken, or has no such setting.
        InvalidInputError: it refuses the device or a value.
    """
    built: CircuitEngine = call_plugin("engine", name, lambda made: made(device, **settings))
    return built


@contextmanager
def run_on(
    module: QuantumExecutedModule, engine: Engine | str, *, layers: Sequence[str] = ("*",)
) -> Iterator[None]:
    """Context in which the layers whose names match one of the patterns run on ``engine``.

    The name of an engine stands for it with the module's device, shots and readout.
    """
    if isinstance(engine, str):
        engine = _engine_of(module, engine)
    chosen = {
        name: layer
        for name, layer in module.layers.items()
        if any(fnmatch(name, pattern) for pattern in layers)
    }
    if not chosen:
        raise UnknownNameError("layer", ", ".join(layers), module.layers)
    with setting(chosen.values(), engine=engine):
        yield


def _engine_of(module: QuantumExecutedModule, name: str) -> Engine:
    execution = module.execution
    return build_engine(
        name, module.device_profile, shots=execution.shots, readout=execution.table.readout
    )
