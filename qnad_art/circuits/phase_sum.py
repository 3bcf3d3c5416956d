"""The neuron ``phase-sum``: all products of a sum as phases of one qubit, ⟨Z⟩ = sin(Σ_j x_j w_j).

    sx · rz(3π/2) · sx · rz(x_1 w_1) · rz(x_2 w_2) · … · rz(π) · [crosstalk block] · sx · measure Z

Virtual ``rz`` gates add up without noise or time, so the neuron is the product circuit with θ = π/2
and φ = Φ = Σ_j x_j w_j, and three numbers hold it: ⟨Z⟩ = c · (1, cos Φ, sin Φ). The factors must be
scaled so that Φ stays in [-π/2, π/2], where the sine has an inverse. The block acts on the sum: a
gate pair shifts all of it, whichever weight it was meant for. No network runs this neuron yet
(``docs/mappings.md`` says what that would take).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qnad_art.circuits.response import ResponseTable

Array = npt.NDArray[np.float64]


def neuron_responses(table: ResponseTable) -> Array:
    """c of ⟨Z⟩ = c · (1, cos Φ, sin Φ) by site and signed count, shape (sites, counts, 3).

    Args:
        table: response of the device's products; its readout and crosstalk model are the neuron's.
    """
    values: Array = table.values[:, :, 0] + table.values[:, :, 2]  # f(π/2) = (1, 0, 1)
    return values


def neuron_turns(table: ResponseTable) -> Array:
    """By how much the crosstalk of a site and count shifts Φ, in rad in (-π, π]; (sites, counts).

    The shift of the sine c₁ cos Φ + c₂ sin Φ = |c| sin(Φ + δ), relaxation included.
    """
    responses = neuron_responses(table)
    turns: Array = np.arctan2(responses[..., 1], responses[..., 2])
    return turns
