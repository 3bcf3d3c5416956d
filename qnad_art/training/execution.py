"""How a network is executed, as far as the adversarial optimisation has to know it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from qnad_art.network.module import QuantumExecutedModule


class Plain:
    """A network without circuits."""

    gradients: tuple[Callable[[], AbstractContextManager[None]], ...] = (nullcontext,)
    """Contexts of the kinds of gradients that an attack can take; first the true ones."""

    def exact(self) -> AbstractContextManager[None]:
        """Context in which the network runs on its exact expectation."""
        return nullcontext()

    def noise(self) -> dict[str, Tensor]:
        """State of the noise, for a checkpoint."""
        return {}

    def restore_noise(self, states: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`noise` gave."""

    def identity(self) -> tuple[dict[str, Any], bytes]:
        """Settings and content that a run's result depends on, besides parameters and buffers."""
        return {}, b""


class Circuits(Plain):
    """A quantum-executed network; an attack can also look through its saturated activations."""

    def __init__(self, module: QuantumExecutedModule) -> None:
        self.module = module
        self.gradients = (nullcontext, module.unsaturated_gradients)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Context without shots."""
        execution = self.module.execution
        self.module.shots = None
        try:
            yield
        finally:
            self.module.execution = execution

    def noise(self) -> dict[str, Tensor]:
        """States of the generators."""
        states: dict[str, Tensor] = self.module.noise.__getstate__()["states"]
        return states

    def restore_noise(self, states: Mapping[str, Tensor]) -> None:
        """Take over states of the generators, if there are any."""
        noise = self.module.noise
        if states:
            noise.__setstate__({**noise.__getstate__(), "states": states})

    def identity(self) -> tuple[dict[str, Any], bytes]:
        """Settings of the execution; the response table, calibration and shots of the layers."""
        told = ("device", "order", "shots", "gain", "headroom", "bias")
        settings = self.module.settings.recorded()
        content = self.module.execution.table.values.tobytes()
        for layer in self.module.layers.values():
            calibration = (layer.input_scale, layer.input_spread, layer.shot_share)
            content += repr((*calibration, layer.input_squares)).encode()
        return {name: settings[name] for name in told}, content


def execution_of(network: nn.Module) -> Plain:
    """How a network is executed."""
    return Circuits(network) if isinstance(network, QuantumExecutedModule) else Plain()
