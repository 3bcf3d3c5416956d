"""What the adversarial optimisation must know about the execution of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor

from qnad_art.layers.mappings import DEFAULT_MAPPING
from qnad_art.network.modes import setting
from qnad_art.network.module import QuantumExecutedModule


class Plain:
    """A network without circuits."""

    gradients: tuple[Callable[[], AbstractContextManager[None]], ...] = (nullcontext,)
    """Contexts for each kind of gradients that an attack can use, beginning with the true ones."""

    def exact(self) -> AbstractContextManager[None]:
        """Context in which the network runs on its exact expectation."""
        return nullcontext()

    def noise(self) -> dict[str, Tensor]:
        """State of the noise, for a checkpoint."""
        return {}

    def restore_noise(self, states: Mapping[str, Tensor]) -> None:
        """Restore the states that :meth:`noise` returned."""

    def identity(self) -> tuple[dict[str, Any], bytes]:
        """Settings and content on which results depend, besides parameters and buffers."""
        return {}, b""


class Circuits(Plain):
    """A quantum-executed network, which has gradients through saturated activations as well."""

    def __init__(self, module: QuantumExecutedModule) -> None:
        self.module = module
        self.gradients = (nullcontext, module.unsaturated_gradients)

    def exact(self) -> AbstractContextManager[None]:
        """Context without shots."""
        return setting([self.module], execution=replace(self.module.execution, shots=None))

    def noise(self) -> dict[str, Tensor]:
        """States of the generators."""
        states: dict[str, Tensor] = self.module.noise.__getstate__()["states"]
        return states

    def restore_noise(self, states: Mapping[str, Tensor]) -> None:
        """Restore the states of the generators, if there are any."""
        noise = self.module.noise
        if states:
            noise.__setstate__({**noise.__getstate__(), "states": states})

    def identity(self) -> tuple[dict[str, Any], bytes]:
        """Settings; the response table, and the calibration and shots of the layers."""
        names = ["device", "order", "shots", "gain", "headroom", "bias"]
        settings = self.module.settings.recorded()
        if settings["mapping"] != DEFAULT_MAPPING:
            names.append("mapping")
        content = self.module.execution.table.values.tobytes()
        for layer in self.module.layers.values():
            calibration = (layer.input_scale, layer.input_spread, layer.shot_share)
            content += repr((*calibration, layer.input_squares)).encode()
        return {name: settings[name] for name in names}, content
