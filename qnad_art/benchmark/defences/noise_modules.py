"""Networks with classical noise: their modules, all of them seeded, freezable and switchable.

The convention of the benchmark: a module with noise keeps its
:class:`~qnad_art.layers.noise_source.NoiseSource` in ``noise``, enters
``noise.forward_pass()`` in its forward, and has ``noisy``, which turns the noise off. The noise is
in the module, so attacks that rebuild their classifier from it meet it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from qnad_art.benchmark.defences.common import WEIGHTED, wrap_layers
from qnad_art.errors import InvalidInputError
from qnad_art.layers.noise_source import NoiseSource


class Noise(nn.Module):
    """Part of a noisy network.

    Args:
        noise: the network's source.
    """

    def __init__(self, noise: NoiseSource) -> None:
        super().__init__()
        self.noise = noise
        self.noisy = True


class NoisyNetwork(nn.Module):
    """A network whose parts draw from one source of noise.

    Args:
        network: with :class:`Noise` among its parts.
        noise: their source.
    """

    def __init__(self, network: nn.Module, noise: NoiseSource) -> None:
        super().__init__()
        self.network = network
        self.noise = noise

    @property
    def noisy(self) -> bool:
        """Whether there is noise; without, it is the network that the noise was put into."""
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


class NoisyInput(Noise):
    """A layer whose input has Gaussian noise of standard deviation ``std``."""

    def __init__(self, layer: nn.Module, std: float, noise: NoiseSource) -> None:
        super().__init__(noise)
        self.layer = layer
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; shapes as in the layer."""
        disturbed = x + self.std * self.noise.normal_like(x) if self.noisy else x
        result: Tensor = self.layer(disturbed)
        return result


class NoisyOutput(Noise):
    """A layer whose output has Gaussian noise of standard deviation ``std``."""

    def __init__(self, layer: nn.Module, std: float, noise: NoiseSource) -> None:
        super().__init__(noise)
        self.layer = layer
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; shapes as in the layer."""
        result: Tensor = self.layer(x)
        return result + self.std * self.noise.normal_like(result) if self.noisy else result


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


def with_noisy_input(network: nn.Module, std: float, seed: int) -> NoisyNetwork:
    """``network`` (taken over) with Gaussian noise on its input."""
    noise = NoiseSource(seed)
    return NoisyNetwork(NoisyInput(network, std, noise), noise)


def with_noisy_convolutions(
    network: nn.Module, kinds: tuple[type[nn.Module], ...], first: float, inner: float, seed: int
) -> NoisyNetwork:
    """``network`` (taken over) with Gaussian noise on the input of each layer of some ``kinds``."""
    noise = NoiseSource(seed)

    def wrap(layer: nn.Module, number: int) -> nn.Module:
        return NoisyInput(layer, inner if number else first, noise)

    if not wrap_layers(network, kinds, wrap):
        raise InvalidInputError("The network has no convolution to put noise before.")
    return NoisyNetwork(network, noise)


def with_noisy_outputs(network: nn.Module, stds: list[float], seed: int) -> NoisyNetwork:
    """``network`` (taken over) with Gaussian noise on the output of each layer with weights."""
    noise = NoiseSource(seed)

    def wrap(layer: nn.Module, number: int) -> nn.Module:
        return NoisyOutput(layer, stds[number], noise)

    layers = len(layers_with_weights(network))
    if layers != len(stds):
        raise InvalidInputError(f"Noise for {len(stds)} layers; the network has {layers}.")
    wrap_layers(network, WEIGHTED, wrap)
    return NoisyNetwork(network, noise)


def with_noisy_weights(network: nn.Module, alpha: float, seed: int) -> NoisyNetwork:
    """``network`` (taken over) with noise on the weights of its convolutions and linear layers."""
    noise = NoiseSource(seed)
    layers: list[Any] = layers_with_weights(network)
    if not layers:
        raise InvalidInputError("The network has no weights to put noise on.")
    for layer in layers:
        parametrize.register_parametrization(
            layer, "weight", WeightNoise(layer.weight, alpha, noise), unsafe=True
        )
    return NoisyNetwork(network, noise)


def layers_with_weights(network: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers, in the order of ``named_modules``."""
    return [part for part in network.modules() if isinstance(part, WEIGHTED)]
