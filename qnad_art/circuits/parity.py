"""The two-qubit product ``zz-parity``: x̂ on one qubit, ŵ on another, read out as ⟨Z⊗Z⟩.

    activation's qubit:  product circuit with φ = π/2, so that ⟨Z⟩ = sin θ
    weight's qubit:      product circuit with θ = π/2, so that ⟨Z⟩ = sin φ, and its crosstalk block

Without noise ⟨Z⊗Z⟩ = sin θ sin φ. Each angle occurs once, so nine numbers hold the product under
any noise. No gate joins the two qubits: the parity of the two outcomes is what multiplies. No
network runs this product yet (``docs/mappings.md`` says what that would take).
"""

from __future__ import annotations

from itertools import product as combinations

import numpy as np
import numpy.typing as npt

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import CrosstalkModel, crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import Readout, check_table, response_table
from qnad_art.circuits.timed import end_seconds, product_operations
from qnad_art.circuits.timeline import append_timeline, shifted
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError

Array = npt.NDArray[np.float64]

_ANGLES = (0.0, np.pi / 2, np.pi)
_RIGHT = np.array([1.0, 0.0, 1.0])
"""f(π/2): the angle of the other factor on each qubit."""


def parity_response(
    device: DeviceProfile,
    activation: int,
    site: Site,
    count: int = 0,
    *,
    readout: Readout = "twirled",
) -> Array:
    """C of ⟨Z⊗Z⟩ = f(θ)ᵀ C f(φ), f(t) = (1, cos t, sin t); shape (3, 3), rows of f(θ).

    Under ``paper``, where crosstalk disturbs its own product alone, C is the outer product of what
    the two qubits give on their own. Under models in time it comes from Aer's density matrix of all
    qubits concerned, at nine pairs of angles.

    Args:
        device: the noise, the crosstalk model included.
        activation: the activation's qubit.
        site: the weight's qubit, and the neighbour that injects crosstalk into it.
        count: signed number of gate pairs or waits.
        readout: ``"twirled"`` (each of the two qubits on its own) or ``"raw"``.

    Raises:
        InvalidInputError: the activation's qubit is one of the site's, or does not exist, or the
            site cannot have this count.
    """
    check_table(readout, abs(count))
    if activation in site.qubits or not 0 <= activation < len(device.qubits):
        raise InvalidInputError(
            f"The activation is on qubit {activation}; give one of the {len(device.qubits)} of "
            f"{device.name} that the weight and its crosstalk do not use, so not {site.qubits}."
        )
    if count and (site.neighbour is None or site.next_to is not None):
        raise InvalidInputError(f"{site} has no neighbour that serves it: count must be 0.")
    model = crosstalk_model(device)
    if not model.timed:
        plain = Site(activation)
        sites, most = (plain, site), abs(count)
        values = response_table(device, sites, max_pairs=most, readout=readout).values
        return np.outer(values[0, most] @ _RIGHT, _RIGHT @ values[1, most + count])
    errors, flips = DeviceErrors(device), (0, 1) if readout == "twirled" else (0,)
    expected = np.empty((3, 3))
    for a, b in np.ndindex(3, 3):
        angles = _ANGLES[a], _ANGLES[b]
        found = [
            (-1) ** sum(flip) * _parity(errors, activation, site, count, angles, flip, model)
            for flip in combinations(flips, repeat=2)
        ]
        expected[a, b] = np.mean(found)
    inverse = np.linalg.inv(np.stack([np.ones(3), np.cos(_ANGLES), np.sin(_ANGLES)], axis=1))
    result: Array = inverse @ expected @ inverse.T
    return result


def _parity(
    errors: DeviceErrors,
    activation: int,
    site: Site,
    count: int,
    angles: tuple[float, float],
    flips: tuple[int, ...],
    model: CrosstalkModel,
) -> float:
    """Measured ⟨Z⊗Z⟩ with an X before the measurement of those qubits that ``flips`` says."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    device, right = errors.device, np.pi / 2
    qubits = (activation, *site.qubits)
    halves = [
        product_operations(
            device, where, number, theta=theta, phi=phi, model=model, flip=bool(flip)
        )
        for where, number, theta, phi, flip in (
            (Site(activation), 0, angles[0], right, flips[0]),
            (site, count, right, angles[1], flips[1]),
        )
    ]
    opens = max(window for _, window in halves)
    operations = [o for made, window in halves for o in shifted(made, opens - window)]
    until = end_seconds(device, opens, flip=any(flips))
    circuit = QuantumCircuit(len(qubits))
    append_timeline(circuit, errors, operations, qubits=qubits, until=until, model=model)
    circuit.save_probabilities([0, 1])
    simulator = AerSimulator(method="density_matrix", noise_model=errors.model(qubits))
    found = simulator.run(circuit, shots=1).result().data(0)["probabilities"]
    joint = np.asarray(found).reshape(2, 2)  # the weight's outcome, then the activation's
    return float(_signs(device, site.qubit) @ joint @ _signs(device, activation))


def _signs(device: DeviceProfile, index: int) -> Array:
    """Measured ⟨Z⟩ of a qubit in |0⟩ and in |1⟩."""
    qubit = device.qubits[index]
    return np.array([1 - 2 * qubit.p1_given_0, 2 * qubit.p0_given_1 - 1])
