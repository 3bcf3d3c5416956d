"""The exact compile of one layer: weights, sites and pair counts → convolution kernels.

With the response ``C`` of each product (see :mod:`qnad_art.circuits.response`), a weight becomes
three numbers ``a = C f(φ)`` and the layer's exact noisy output is

    y_o = s_x s_w,o / g_o · Σ_j [a0 - c + a1·sqrt(1 - x̂_j²) + a2·x̂_j] + bias

(x̂ = x / s_x, ŵ = w / s_w = sin φ, gain g and offset c known from calibration), i.e. ordinary
convolutions with changed weights. That is for the mapping ``arcsine``; under others sin θ and cos θ
stand for x̂ and its root, and the sum is multiplied by the mapping's ``decoding``
(:mod:`qnad_art.layers.mappings`). With S shots a product, the sum has the variance
``(s_x s_w / g)² Σ_j (1 - E_j²) / S``, E_j the product's expectation. Terms whose coefficients
vanish for a layer's words are left out.

With ``bias="quantum"`` the bias is one more product of the sum, the weight of an input that is
always s_x (x̂ = 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from qnad_art.circuits.response import ResponseTable
from qnad_art.errors import InvalidInputError
from qnad_art.layers.mappings import ARCSINE, Mapping

Gain = Literal["calibrated", "raw"]
GAINS: tuple[Gain, ...] = ("calibrated", "raw")
Bias = Literal["classical", "quantum"]
BIASES: tuple[Bias, ...] = ("classical", "quantum")

ZERO = 1e-12
"""Coefficients of the response at or below this are numerical zeros."""
_Group = TypeVar("_Group", bound="_Tensors")


@dataclass(frozen=True)
class _Tensors:
    """A group of tensors, some of which a device may do without."""

    def map(self: _Group, change: Callable[[Tensor], Tensor]) -> _Group:
        """Each tensor changed, always in the same order."""

        def changed(value: Tensor | _Tensors | None) -> Tensor | _Tensors | None:
            if value is None:
                return None
            return value.map(change) if isinstance(value, _Tensors) else change(value)

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})

    def tensors(self) -> list[Tensor]:
        """The tensors, in the order of :meth:`map`."""
        found: list[Tensor] = []

        def find(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(find)
        return found

    def with_tensors(self: _Group, tensors: Iterable[Tensor]) -> _Group:
        """The same group with other tensors, in the order of :meth:`map`."""
        others = iter(tensors)
        return self.map(lambda _: next(others))


@dataclass(frozen=True)
class VarianceKernels(_Tensors):
    """Kernels of the shot noise: its variance is ``scale²`` times Σ_j (1 - E_j²), the sum of these.

    Args:
        scale: (out,), s_x s_w / (g √S).
        constant: what does not depend on the activations; shape as in :class:`Kernels`.
        x2, x, cos, xcos: shape of the weight; act on x̂², x, sqrt(1 - x̂²) and x̂·sqrt(1 - x̂²).
        bias: (out,), of the bias's product, if it is one.
    """

    scale: Tensor
    constant: Tensor
    x2: Tensor | None = None
    x: Tensor | None = None
    cos: Tensor | None = None
    xcos: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Kernels(_Tensors):
    """What a layer computes with; terms that vanish for its words are ``None``.

    Args:
        x: shape of the weight; acts on x.
        constant: what does not depend on the activations, summed over input channels: (out,) for a
            linear layer, (out, 1, …) for a convolution.
        cos: shape of the weight; acts on sqrt(1 - x̂²).
        bias: (out,), of the bias's product, if it is one.
        variance: of the shot noise; ``None`` without shots.
    """

    x: Tensor
    constant: Tensor
    cos: Tensor | None = None
    bias: Tensor | None = None
    variance: VarianceKernels | None = None


@dataclass(frozen=True)
class Execution:
    """How the products of a network are run.

    Args:
        table: noise of every site and pair count.
        shots: shots a product; ``None`` for the exact expectation.
        gain: ``"calibrated"`` takes the constant offset of its products off each output's sum and
            divides it by their mean contraction (both known from the calibration circuits),
            ``"raw"`` does neither.
        headroom: s_w over the largest |weight| of an output, at least 1: room for crosstalk to
            raise weights above it. Shot noise grows with it.
        bias: ``"classical"`` adds the bias after the sum, ``"quantum"`` runs it as one more
            product, the weight of an input that is always s_x: noise and crosstalk act on it too.
        calibrated: the table by which gain and offset were calibrated, of the same sites and
            counts, if the device has drifted since; ``None`` means ``table``.
        mapping: the angle that stands for an activation.
    """

    table: ResponseTable
    shots: int | None = None
    gain: Gain = "calibrated"
    headroom: float = 1.0
    bias: Bias = "classical"
    calibrated: ResponseTable | None = None
    mapping: Mapping = ARCSINE

    def __post_init__(self) -> None:
        check_execution(self.shots, self.gain, self.headroom, self.bias)
        if self.calibrated is not None and self.calibrated.sites != self.table.sites:
            raise InvalidInputError("Gain and offset were calibrated at other sites.")

    @property
    def known(self) -> ResponseTable:
        """The table by which gain and offset were calibrated."""
        return self.table if self.calibrated is None else self.calibrated


def check_execution(shots: int | None, gain: str, headroom: float, bias: str) -> None:
    """Raise :class:`InvalidInputError` for what an :class:`Execution` cannot have."""
    if gain not in GAINS:
        raise InvalidInputError(f"gain {gain!r} is not one of {', '.join(GAINS)}.")
    if bias not in BIASES:
        raise InvalidInputError(f"bias {bias!r} is not one of {', '.join(BIASES)}.")
    if not 1 <= headroom < float("inf"):
        raise InvalidInputError(f"headroom is {headroom}; it must be 1 or more.")
    whole = isinstance(shots, (int, np.integer)) and not isinstance(shots, bool)
    if shots is not None and not (whole and shots >= 1):
        raise InvalidInputError(
            f"shots is {shots!r}; give a whole number from 1, or None for the expectation."
        )


class Products(NamedTuple):
    """How the products of a layer run.

    Args:
        site, pairs: index into the response table and signed pair count; shape of the weight, or
            (out, J + 1) where the bias is a product too.
        execution: response table, shots and gain.
        scale_x: activation scale s_x.
        shots: (out,), shots a product of each output where they are not the same for all.
    """

    site: Tensor
    pairs: Tensor
    execution: Execution
    scale_x: float
    shots: Tensor | None = None


def compile_kernels(
    weight: Tensor, bias: Tensor | None, products: Products, *, wanted: Tensor | None = None
) -> Kernels:
    """Kernels of a layer, as a differentiable function of weight and bias.

    Args:
        weight: (out, in / groups, …).
        bias: (out,), where it is a product too, else ``None``.
        products: where and how they run.
        wanted: shape of the sites; the effective weight a2 that the injected crosstalk was chosen
            for. The kernels do not depend on it, but their gradient with respect to it is that
            with respect to a2 (straight-through estimator).
    """
    execution, scale_x = products.execution, products.scale_x
    response = _Response(products.site, products.pairs, execution.table)
    decoding = execution.mapping.decoding
    rows = with_bias(weight, bias, scale_x * decoding)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    tiny = torch.finfo(rows.dtype).tiny
    scale_w = weight_scales(rows, execution)
    sine = rows / scale_w.clamp_min(tiny)
    cosine = (1 - sine.square()).clamp_min(tiny).sqrt()
    a0, a1, a2 = response.amplitudes(sine, cosine)
    if wanted is not None:
        a2 = a2 + (wanted - wanted.detach()).flatten(1).to(rows.dtype)
    constant = a0
    if execution.gain == "calibrated":
        known = _Response(products.site, products.pairs, execution.known)
        scale_w = scale_w / known.contraction().to(rows.dtype)[:, None]
        constant = a0 - known.offsets().to(rows.dtype)
    scale_w = scale_w * decoding
    # The product of a bias has the activation x̂ = 1, where the cosine vanishes.
    bias_mean = None if bias is None else ((constant + a2) * scale_w)[:, -1] * scale_x
    bias_variance = None if bias is None else 1 - (a0 + a2)[:, -1].square()
    fan_in = weight[0].numel()
    constant, a0, a2 = constant[:, :fan_in], a0[:, :fan_in], a2[:, :fan_in]
    a1 = None if a1 is None else a1[:, :fan_in]
    kernels = Kernels(
        x=_as_weight(a2 * scale_w, weight),
        constant=_sum_inputs(constant * scale_w * scale_x, weight),
        cos=None if a1 is None else _as_weight(a1 * scale_w * scale_x, weight),
        bias=bias_mean,
    )
    if execution.shots is None:
        return kernels
    shots = execution.shots if products.shots is None else products.shots
    scale = scale_w.flatten() * (scale_x / torch.as_tensor(shots, dtype=rows.dtype).sqrt())
    variance = _variance(a0, a1, a2, weight, scale_x, scale, bias_variance)
    return replace(kernels, variance=variance)


def with_bias(weight: Tensor, bias: Tensor | None, unit: float) -> Tensor:
    """The weights of each output's products, (out, J); with a bias it is the last, (out, J + 1).

    ``unit`` is what the product of the bias contributes for a weight of 1.
    """
    rows = weight.flatten(1)
    return rows if bias is None else torch.cat([rows, bias[:, None].to(rows) / unit], 1)


def weight_scales(rows: Tensor, execution: Execution) -> Tensor:
    """s_w of every output, (out, 1), from its weights (out, J)."""
    return rows.abs().amax(1, keepdim=True) * execution.headroom


def weight_angles(weight: Tensor, execution: Execution) -> Tensor:
    """Phase φ = arcsin ŵ of every weight in rad, shape of ``weight``."""
    rows = weight.detach().float().flatten(1)
    tiny = torch.finfo(rows.dtype).tiny
    return (rows / weight_scales(rows, execution).clamp_min(tiny)).asin().view_as(weight)


def contraction(site: Tensor, pairs: Tensor, execution: Execution) -> Tensor:
    """Mean contraction of each output's products, by which its sum is divided; shape (out,).

    How much a product's phase vector shrinks, whatever its weight: decoherence and readout, known
    from the calibration circuits. Ones with ``gain="raw"``.
    """
    if execution.gain == "raw":
        return torch.ones(len(site), device=site.device)
    return _Response(site, pairs, execution.known).contraction()


def offsets(site: Tensor, pairs: Tensor, execution: Execution) -> Tensor:
    """Constant offset of every product, which is taken off its sum; shape (out, J).

    What a product of zeros measures (relaxation towards |0⟩, raw readout), known from the
    calibration circuits. Zeros with ``gain="raw"``.
    """
    response = _Response(site, pairs, execution.known)
    return response.offsets() * (execution.gain == "calibrated")


class _Response:
    """The table's entries at every weight of a layer, as (rows, J)."""

    def __init__(self, site: Tensor, pairs: Tensor, table: ResponseTable) -> None:
        self._shape = (len(site), -1)
        self._values = torch.as_tensor(table.values, device=site.device)
        self._code = (site.int() * (2 * table.max_pairs + 1) + pairs + table.max_pairs).flatten()

    def amplitudes(self, sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """a = C f(φ) of every weight; a1 is ``None`` where it vanishes."""
        a0, a1, a2 = (self._amplitude(row, sine, cosine) for row in range(3))
        zero = torch.zeros_like(sine)
        return zero if a0 is None else a0, a1, zero if a2 is None else a2

    def contraction(self) -> Tensor:
        """Mean length of each output's phase vectors, shape (out,)."""
        lengths = self._values[..., 2, 1:].square().sum(-1).sqrt()
        return self._take(lengths).mean(1).clamp_min(1e-3)

    def offsets(self) -> Tensor:
        """Part of every product's expectation that depends on neither factor, (rows, J)."""
        return self._take(self._values[..., 0, 0] + self._values[..., 0, 1])

    def _amplitude(self, row: int, sine: Tensor, cosine: Tensor) -> Tensor | None:
        total = None
        for column, factor in enumerate((None, cosine, sine)):
            entries = self._values[..., row, column]
            if entries.abs().max() <= ZERO:
                continue
            term = self._take(entries.to(sine.dtype))
            if term.abs().max() > ZERO:  # of the words in use: those of other sites cost nothing
                term = term if factor is None else term * factor
                total = term if total is None else total + term
        return total

    def _take(self, entries: Tensor) -> Tensor:
        """``entries`` (sites, pair counts) at every weight."""
        return entries.flatten().index_select(0, self._code).view(self._shape)


def _variance(
    a0: Tensor,
    a1: Tensor | None,
    a2: Tensor,
    weight: Tensor,
    scale_x: float,
    scale: Tensor,
    bias: Tensor | None,
) -> VarianceKernels:
    """Σ_j (1 - E_j²) as a constant and minus kernels on x̂², x, cos and x̂·cos."""
    cos_squared = torch.zeros_like(a2) if a1 is None else a1.square()
    return VarianceKernels(
        scale=scale,
        constant=_sum_inputs(1 - a0.square() - cos_squared, weight),
        x2=_as_weight(cos_squared - a2.square(), weight),
        x=_as_weight(-2 * a0 * a2 / scale_x, weight),
        cos=None if a1 is None else _as_weight(-2 * a0 * a1, weight),
        xcos=None if a1 is None else _as_weight(-2 * a1 * a2, weight),
        bias=bias,
    )


def _as_weight(terms: Tensor, weight: Tensor) -> Tensor:
    """What multiplies activations has shape and type of the weight.

    All else has at least single precision.
    """
    return terms.view_as(weight).to(weight.dtype)


def _sum_inputs(terms: Tensor, weight: Tensor) -> Tensor:
    """Sum (rows, J) over input channels: (out,) for linear, (out, 1, *kernel) for convolutions."""
    summed = terms.view_as(weight).sum(1)
    return summed if weight.dim() == 2 else summed.unsqueeze(1)
