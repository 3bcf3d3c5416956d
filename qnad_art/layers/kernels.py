"""The exact compile of one layer: weights, sites and pair counts → convolution kernels.

With the response ``C`` of each product (see :mod:`qnad_art.circuits.response`), a weight becomes
three numbers ``a = C f(φ)`` and the layer's exact noisy output is

    y_o = s_x s_w,o / g_o · Σ_j [a0 - c + a1·sqrt(1 - x̂_j²) + a2·x̂_j] + bias

(x̂ = x / s_x, ŵ = w / s_w = sin φ, gain g and offset c known from calibration), i.e. ordinary
convolutions with changed weights. With S shots a product, the sum has the variance
``(s_x s_w / g)² Σ_j (1 - E_j²) / S``, E_j the product's expectation. Terms whose coefficients
vanish for a device are left out.

With ``bias="quantum"`` the bias is one more product of the sum, the weight of an input that is
always s_x (x̂ = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qnad_art.circuits.response import ResponseTable
from qnad_art.errors import InvalidInputError

Gain = Literal["calibrated", "raw"]
GAINS: tuple[Gain, ...] = ("calibrated", "raw")
Bias = Literal["classical", "quantum"]
BIASES: tuple[Bias, ...] = ("classical", "quantum")

ZERO = 1e-12
"""Coefficients of the response at or below this are numerical zeros."""

BLOCK = 1 << 17
"""Weights compiled at a time."""

Kernels = dict[str, Tensor]
"""What a layer computes with.

``mean.x`` and ``mean.cos`` have the weight's shape and act on x and sqrt(1 - x̂²); ``mean.1`` is
the constant part, summed over input channels. With shots, ``second.x2``, ``second.x``,
``second.cos`` and ``second.xcos`` act on x̂², x, cos and x̂·cos and give -Σ E_j² up to its constant
part; ``variance.1`` is Σ_j 1 minus that constant part; ``noise`` (one number an output) scales the
deviation. ``mean.bias`` and ``variance.bias`` (one number an output) are the bias's product, if it
is one. Terms that vanish for the device are absent.

Where the activations allow it :mod:`qnad_art.layers.variance` replaces ``second.x2`` by the cheaper
``shared.x2`` (one output) and ``shared.out`` (one number an output), by the latter alone, or by
``mixed.x2`` (some outputs) and ``mixed.out``, which makes all outputs of these.
"""


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
    """

    table: ResponseTable
    shots: int | None = None
    gain: Gain = "calibrated"
    headroom: float = 1.0
    bias: Bias = "classical"

    def __post_init__(self) -> None:
        check_execution(self.shots, self.gain, self.headroom, self.bias)


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


def compile_kernels(
    weight: Tensor,
    site: Tensor,
    pairs: Tensor,
    *,
    execution: Execution,
    scale_x: float,
    bias: Tensor | None = None,
    wanted: Tensor | None = None,
    shots: Tensor | None = None,
) -> Kernels:
    """Kernels of a layer, as a differentiable function of ``weight`` (out, in / groups, …).

    Args:
        site, pairs: index into the response table and signed pair count; shape of the weight, or
            (out, J + 1) with a bias.
        execution: response table, shots and gain.
        scale_x: activation scale s_x.
        bias: (out,), where it is a product too.
        wanted: shape of ``site``; the effective weight a2 that the injected crosstalk was chosen
            for. The kernels do not depend on it, but their gradient with respect to it is that
            with respect to a2 (straight-through estimator).
        shots: (out,), shots a product of each output where they are not the same for all.
    """
    response = _Response(site, pairs, execution.table)
    rows = with_bias(weight, bias, scale_x)
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
        scale_w = scale_w / response.contraction().to(rows.dtype)[:, None]
        constant = a0 - response.offsets().to(rows.dtype)
    kernels = {}
    if bias is not None:  # at x̂ = 1 the cosine vanishes
        kernels["mean.bias"] = ((constant + a2) * scale_w)[:, -1] * scale_x
        kernels["variance.bias"] = 1 - (a0 + a2)[:, -1].square()
    fan_in = weight[0].numel()
    constant, a0, a2 = constant[:, :fan_in], a0[:, :fan_in], a2[:, :fan_in]
    kernels["mean.x"] = (a2 * scale_w).view_as(weight)
    kernels["mean.1"] = _sum_inputs(constant * scale_w * scale_x, weight)
    if a1 is not None:
        a1 = a1[:, :fan_in]
        kernels["mean.cos"] = (a1 * scale_w * scale_x).view_as(weight)
    if execution.shots is not None:
        count = torch.as_tensor(execution.shots if shots is None else shots, dtype=rows.dtype)
        kernels["noise"] = scale_w.flatten() * (scale_x / count.sqrt())
        kernels |= _variance(a0, a1, a2, weight, scale_x)
    # What multiplies activations has the weight's type, the rest at least single precision.
    return {
        name: kernel.to(weight.dtype) if kernel.shape == weight.shape else kernel
        for name, kernel in kernels.items()
    }


def with_bias(weight: Tensor, bias: Tensor | None, scale_x: float) -> Tensor:
    """The weights of each output's products, (out, J); with a bias it is the last, (out, J + 1)."""
    rows = weight.flatten(1)
    return rows if bias is None else torch.cat([rows, bias[:, None].to(rows) / scale_x], 1)


def weight_scales(rows: Tensor, execution: Execution) -> Tensor:
    """s_w of every output, (out, 1), from its weights (out, J)."""
    return rows.abs().amax(1, keepdim=True) * execution.headroom


def weight_angles(weight: Tensor, execution: Execution) -> Tensor:
    """Phase φ = arcsin ŵ of every weight in rad, shape of ``weight``."""
    rows = weight.detach().float().flatten(1)
    tiny = torch.finfo(rows.dtype).tiny
    return (rows / weight_scales(rows, execution).clamp_min(tiny)).asin().view_as(weight)


def compile_in_blocks(
    weight: Tensor,
    site: Tensor,
    pairs: Tensor,
    *,
    execution: Execution,
    scale_x: float,
    bias: Tensor | None = None,
    shots: Tensor | None = None,
) -> Kernels:
    """:func:`compile_kernels` without gradients, some outputs at a time to bound the memory."""
    outputs = max(1, BLOCK // max(weight[0].numel(), 1))
    parts = list(zip(*(t.split(outputs) for t in (weight, site, pairs)), strict=True))
    biases, counts = (
        [None] * len(parts) if values is None else values.split(outputs) for values in (bias, shots)
    )
    whole: Kernels = {}
    with torch.no_grad():
        for number, (part, own, count) in enumerate(zip(parts, biases, counts, strict=True)):
            block = compile_kernels(
                *part, execution=execution, scale_x=scale_x, bias=own, shots=count
            )
            if len(parts) == 1:
                return block
            for name, kernel in block.items():
                if number == 0:
                    whole[name] = kernel.new_empty((len(weight), *kernel.shape[1:]))
                whole[name][number * outputs : (number + 1) * outputs] = kernel
    return whole


def contraction(site: Tensor, pairs: Tensor, execution: Execution) -> Tensor:
    """Mean contraction of each output's products, by which its sum is divided; shape (out,).

    How much a product's phase vector shrinks, whatever its weight: decoherence and readout, known
    from the calibration circuits. Ones with ``gain="raw"``.
    """
    if execution.gain == "raw":
        return torch.ones(len(site), device=site.device)
    return _Response(site, pairs, execution.table).contraction()


def offsets(site: Tensor, pairs: Tensor, execution: Execution) -> Tensor:
    """Constant offset of every product, which is taken off its sum; shape (out, J).

    What a product of zeros measures (relaxation towards |0⟩, raw readout), known from the
    calibration circuits. Zeros with ``gain="raw"``.
    """
    response = _Response(site, pairs, execution.table)
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
            if entries.abs().max() > ZERO:
                term = self._take(entries.to(sine.dtype))
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
) -> Kernels:
    """Σ_j (1 - E_j²) as a constant and minus kernels on x̂², x, cos and x̂·cos."""
    cos_squared = torch.zeros_like(a2) if a1 is None else a1.square()
    kernels = {
        "variance.1": _sum_inputs(1 - a0.square() - cos_squared, weight),
        "second.x2": (cos_squared - a2.square()).view_as(weight),
        "second.x": (-2 * a0 * a2 / scale_x).view_as(weight),
    }
    if a1 is not None:
        kernels["second.cos"] = (-2 * a0 * a1).view_as(weight)
        kernels["second.xcos"] = (-2 * a1 * a2).view_as(weight)
    return kernels


def _sum_inputs(terms: Tensor, weight: Tensor) -> Tensor:
    """Sum (rows, J) over input channels: (out,) for linear, (out, 1, *kernel) for convolutions."""
    summed = terms.view_as(weight).sum(1)
    return summed if weight.dim() == 2 else summed.unsqueeze(1)
