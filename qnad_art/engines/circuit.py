"""Engines that run circuits: a layer's products, and from their ⟨Z⟩ back to its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qnad_art.circuits.product import Site
from qnad_art.circuits.response import READOUTS, Readout
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import contraction, offsets, weight_scales
from qnad_art.layers.quantum_layer import QuantumLayer

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

MAX_PRODUCTS = 2_000_000


@dataclass(frozen=True)
class LayerProducts:
    """Products of one layer call; arrays of shape (n,) unless said otherwise.

    Args:
        theta, phi: angles in rad.
        sites: what ``site`` indexes.
        site, pairs: index and signed pair count.
        offset: known offset, to be taken off ⟨Z⟩.
        where: where they belong, bool (outputs, images, fan_in, positions).
        scale: of the sums, (outputs,).
    """

    theta: Array
    phi: Array
    sites: tuple[Site, ...]
    site: Integers
    pairs: Integers
    offset: Array
    where: npt.NDArray[np.bool_]
    scale: Tensor


class CircuitEngine(ABC):
    """Runs products circuit by circuit; what is left to a subclass is :meth:`expectations`.

    Args:
        device: the noise, or the hardware's description.
        readout: ``"twirled"`` or ``"raw"``.
        shots: counts a product; ``None`` for the exact expectation.
        seed: of all that is random.
        max_products: refuse a layer call that needs more circuits than this.

    Raises:
        InvalidInputError: a value that cannot be used; no shots where :attr:`exact` is false.
    """

    exact: ClassVar[bool] = True
    """Whether it can give expectations without shots."""

    def __init__(
        self,
        device: DeviceProfile,
        *,
        readout: Readout = "twirled",
        shots: int | None = None,
        seed: int = 0,
        max_products: int = MAX_PRODUCTS,
    ) -> None:
        if readout not in READOUTS:
            raise InvalidInputError(f"readout {readout!r} is not one of {', '.join(READOUTS)}.")
        if shots is None and not self.exact:
            raise InvalidInputError(f"{type(self).__name__} only counts: give shots, say 1024.")
        if shots is not None and shots < 1:
            raise InvalidInputError(f"shots is {shots}; give a whole number from 1, or None.")
        self.device = device
        self.readout = readout
        self.shots = shots
        self.max_products = max_products
        self.random = np.random.default_rng(seed)

    @abstractmethod
    def expectations(
        self, theta: Array, phi: Array, sites: Sequence[Site], site: Integers, pairs: Integers
    ) -> Array:
        """⟨Z⟩ of products, exact or estimated from counts.

        Args:
            theta, phi: angles in rad, shape (n,).
            sites: what ``site`` indexes.
            site, pairs: index and signed pair count, shape (n,).
        """

    def __call__(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """The layer's output from circuits; its gradient is the compiled layer's."""
        mean, _ = layer.moments(x)
        with torch.no_grad():
            circuits = self._layer(layer, x.detach())
        return mean + (circuits.to(mean.dtype) - mean).detach()

    def products(self, layer: QuantumLayer, x: Tensor) -> LayerProducts:
        """All products of a layer call.

        Raises:
            InvalidInputError: they are more than ``max_products``.
        """
        scale_x = layer.input_scale
        assert scale_x is not None
        windows, executed, _ = layer.windows(x.detach())
        images, groups, fan_in, positions = windows.shape
        outputs = layer.weight.shape[0]
        count = int(executed.sum()) * images * (outputs // groups)
        if count > self.max_products:
            raise InvalidInputError(
                f"This layer call needs {count:,} circuits, more than max_products="
                f"{self.max_products:,}. Pass fewer images, or choose smaller layers."
            )
        group = np.arange(outputs) // (outputs // groups)
        shape = (outputs, images, fan_in, positions)
        mask = executed.bool().cpu().numpy()[0]
        where = np.broadcast_to(mask[group][:, None], shape)

        def of_weights(values: Any) -> Any:
            return np.broadcast_to(np.asarray(values)[:, None, :, None], shape)[where]

        inputs = (windows.detach().double() / scale_x).clamp(-1, 1).cpu().numpy().swapaxes(0, 1)
        rows = layer.product_weights().detach().double().flatten(1).cpu()
        scale_w = weight_scales(rows, layer.execution)[:, 0]
        weights = (rows / scale_w.clamp_min(1e-300)[:, None]).clamp(-1, 1)
        return LayerProducts(
            theta=layer.execution.mapping.theta(inputs)[group][where],
            phi=of_weights(np.arcsin(weights.numpy())),
            sites=tuple(layer.execution.table.sites),
            site=of_weights(layer.site.flatten(1).cpu().numpy()),
            pairs=of_weights(layer.pairs.flatten(1).cpu().numpy()),
            offset=of_weights(offsets(layer.site, layer.pairs, layer.execution).cpu().numpy()),
            where=where,
            scale=scale_x
            * layer.execution.mapping.decoding
            * scale_w
            / contraction(layer.site, layer.pairs, layer.execution).cpu(),
        )

    def _layer(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """Sum of a layer's products, scaled back, plus bias."""
        made = self.products(layer, x)
        values = np.zeros(made.where.shape)
        values[made.where] = self.expectations(
            made.theta, made.phi, made.sites, made.site, made.pairs
        )
        values[made.where] -= made.offset
        result: Tensor = torch.as_tensor(values.sum(2).swapaxes(0, 1)) * made.scale[:, None]
        if layer.bias is not None and layer.quantum_bias is None:
            result = result + layer.bias.detach().cpu().double()[:, None]
        return result.view(layer.windows(x)[2]).to(x.device)
