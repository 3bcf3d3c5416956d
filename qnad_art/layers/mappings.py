"""Mappings: which angles of the product circuit stand for an activation and a weight.

The circuit multiplies sin θ by sin φ. The weight's phase is φ = arcsin ŵ under every mapping, so
the effective weights and what crosstalk does to them are the same. A mapping says which θ stands
for the activation x̂ in [-1, 1], and what the sum of the products is multiplied by afterwards. Each
angle occurs once, so nine numbers hold a product under any noise
(:mod:`qnad_art.circuits.response`).

``arcsine``
    θ = arcsin x̂: the product is x̂·ŵ. Source of the encoding: Mitarai et al., PRA 98, 032309, 2018,
    doi 10.1103/PhysRevA.98.032309.
``linear``
    θ = πx̂/2: the product is sin(πx̂/2)·ŵ, and the sum is multiplied by 8/π². Source of the encoding
    (angle encoding): LaRose and Coyle, PRA 102, 032420, 2020, doi 10.1103/PhysRevA.102.032420.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qnad_art.plugins.discovery import load_plugin

Array = npt.NDArray[np.float64]

DEFAULT_MAPPING = "arcsine"


@dataclass(frozen=True)
class Mapping:
    """The mapping ``arcsine``; subclasses override all three methods together.

    θ must rise from -π/2 at x̂ = -1 to π/2 at x̂ = 1, and be odd.

    Args:
        name: under which it is registered, and which settings and saved classifiers refer to.
        decoding: what sums of products are multiplied by. It changes the scale of a layer's output
            and no angle.
    """

    name: str
    decoding: float = 1.0

    def theta(self, x: Array) -> Array:
        """θ in rad of activations x̂ in [-1, 1], for circuits."""
        angles: Array = np.arcsin(x)
        return angles

    def sine(self, x: Tensor, scale: float) -> Tensor:
        """s_x sin θ of activations ``x`` in [-s_x, s_x]; ``scale`` is s_x. Differentiable."""
        return x

    def cosine(self, x: Tensor, scale: float) -> Tensor:
        """cos θ of the same activations. Differentiable."""
        # The root's slope is infinite at the ends of its range, where clamping has none.
        return (1 - (x / scale).square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()


@dataclass(frozen=True)
class Linear(Mapping):
    """The mapping ``linear``: an angle that is proportional to the activation.

    Of all multiples of sin(πx̂/2), 8/π² times it comes closest to x̂ in the mean square over [-1, 1].
    (2/π would be right for small activations, and makes the largest too small by 36 %.)
    """

    name: str = "linear"
    decoding: float = 8 / math.pi**2

    def theta(self, x: Array) -> Array:
        """See :meth:`Mapping.theta`."""
        return np.pi / 2 * x

    def sine(self, x: Tensor, scale: float) -> Tensor:
        """See :meth:`Mapping.sine`."""
        return (x * (math.pi / 2 / scale)).sin() * scale

    def cosine(self, x: Tensor, scale: float) -> Tensor:
        """See :meth:`Mapping.cosine`."""
        return (x * (math.pi / 2 / scale)).cos()


ARCSINE = Mapping(DEFAULT_MAPPING)
LINEAR = Linear()


def load_mapping(name: str) -> Mapping:
    """The mapping that is registered under ``name``.

    Raises:
        UnknownNameError: none is.
        PluginError: the plugin that registered it is broken.
    """
    mapping: Mapping = load_plugin("mapping", name)
    return mapping
