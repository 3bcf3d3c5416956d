"""Modules of networks with classical noise, all of them seeded, freezable and switchable.

The convention of the benchmark: a module with noise keeps its
:class:`~qnad_art.layers.noise_source.NoiseSource` in ``noise``, enters
``noise.forward_pass()`` in its forward, and has ``noisy``, which turns the noise off. The noise is
in the module, so it is also there for attacks that rebuild their classifier from the module.
"""

from __future__ import annotations

from torch import Tensor, nn

from qnad_art.benchmark.defences.common import WEIGHTED
from qnad_art.layers.noise_source import NoiseSource


class Noise(nn.Module):
    """Part of a noisy network, which draws from the network's source."""

    def __init__(self, noise: NoiseSource) -> None:
        super().__init__()
        self.noise = noise
        self.noisy = True


class NoisyNetwork(nn.Module):
    """A network whose parts draw from one source of noise.

    Args:
        network: a network with :class:`Noise` among its parts; it is not copied.
        noise: source of their noise.
    """

    def __init__(self, network: nn.Module, noise: NoiseSource) -> None:
        super().__init__()
        self.network = network
        self.noise = noise

    @property
    def noisy(self) -> bool:
        """Whether there is noise; without it, this is the network before noise was added."""
        return any(part.noisy for part in self._parts())

    @noisy.setter
    def noisy(self, noisy: bool) -> None:
        for part in self._parts():
            part.noisy = noisy

    def forward(self, x: Tensor) -> Tensor:
        """Logits of one draw."""
        with self.noise.forward_pass():
            result: Tensor = self.network(x)
        return result

    def _parts(self) -> list[Noise]:
        parts = (part for part in self.network.modules() if isinstance(part, Noise))
        return [part for part in parts if part.noise is self.noise]


class NoisyLayer(Noise):
    """A layer with Gaussian noise of standard deviation ``std``; shapes are those of the layer."""

    def __init__(self, layer: nn.Module, std: float, noise: NoiseSource) -> None:
        super().__init__(noise)
        self.layer = layer
        self.std = std

    def disturbed(self, values: Tensor) -> Tensor:
        """``values`` with the noise, if it is on."""
        return values + self.std * self.noise.normal_like(values) if self.noisy else values


class NoisyInput(NoisyLayer):
    """A layer whose input has noise."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        result: Tensor = self.layer(self.disturbed(x))
        return result


class NoisyOutput(NoisyLayer):
    """A layer whose output has noise."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with noise."""
        return self.disturbed(self.layer(x))


class WeightNoise(Noise):
    """Parametrization of a weight: w + α·η, η ~ N(0, var(w)), α trained."""

    def __init__(self, weight: Tensor, alpha: float, noise: NoiseSource) -> None:
        super().__init__(noise)
        self.alpha = nn.Parameter(weight.new_tensor(alpha))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight of one draw."""
        if not self.noisy:
            return weight
        spread = weight.detach().std(correction=0)
        return weight + self.alpha * spread * self.noise.normal_like(weight)


def layers_with_weights(network: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers, in the order of ``named_modules``."""
    return [part for part in network.modules() if isinstance(part, WEIGHTED)]
