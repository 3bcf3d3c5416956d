"""Response of words in time, under models whose ZZ coupling acts on every pair at all times.

The parts of a word are exact superoperators of the qubits that it concerns, computed by Aer; the
unit is multiplied up in NumPy. What a word leaves behind (its neighbour decays while it waits in
|1⟩) is met by the products that start after it on other qubits: they have words of their own
(:attr:`~qnad_art.circuits.product.Site.next_to`), exact like all others.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qnad_art.circuits.aer_noise import DeviceErrors
from qnad_art.circuits.crosstalk_models import CrosstalkModel, crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.timeline import Operation, append_timeline, shifted
from qnad_art.circuits.words import Word, flip_seconds, window_seconds, word
from qnad_art.device.profile import DeviceProfile

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

_ANGLES = (0.0, np.pi / 2, np.pi)


def product_operations(
    device: DeviceProfile,
    site: Site,
    count: int,
    *,
    theta: Any,
    phi: Any,
    model: CrosstalkModel,
    flip: bool,
) -> tuple[list[Operation], float]:
    """Operations of one product and of its word, and the second in which the window starts.

    ``count`` is 0 for a product that starts in the window, also next to a word (which belongs to
    another product). The product ends, and is measured,
    :func:`~qnad_art.circuits.words.window_seconds` later (and the X of the flipped half of twirled
    readout after that).
    """
    qubit = site.qubit
    sx = device.qubits[qubit].sx_duration
    served = count != 0
    block = word(device, site, count, model=model) if served else None
    begin = 2 * sx if served else 0.0
    opens = begin + (block.seconds if block else 0.0)
    window = window_seconds(device)
    first = 0.0 if served else opens + window - 3 * sx
    operations = [
        Operation("sx", (qubit,), first, sx),
        Operation("rz", (qubit,), first + sx, angle=theta + np.pi),
        Operation("sx", (qubit,), first + sx, sx),
        Operation("rz", (qubit,), first + 2 * sx, angle=phi + np.pi),
        Operation("sx", (qubit,), opens if served else opens + window - sx, sx),
    ]
    if block:
        operations += shifted(block.block(), begin)
    if flip:
        x = device.qubits[qubit].x_duration
        operations.append(Operation("x", (qubit,), opens + window, x))
    return operations, opens


def site_operations(
    device: DeviceProfile,
    site: Site,
    count: int,
    *,
    theta: Any,
    phi: Any,
    model: CrosstalkModel,
    flip: bool,
) -> tuple[list[Operation], float]:
    """As :func:`product_operations`, and what a word next to the product does before it.

    Of a site next to another product, the neighbour does what it does to serve that one.
    """
    if not count or site.next_to is None:
        return product_operations(device, site, count, theta=theta, phi=phi, model=model, flip=flip)
    made = word(device, site, count, model=model)
    late, opens = product_operations(device, site, 0, theta=theta, phi=phi, model=model, flip=flip)
    return [*made.block(), *shifted(late, made.seconds - opens)], made.seconds


def product_circuit_in_time(
    errors: DeviceErrors,
    site: Site,
    count: int,
    *,
    theta: Any,
    phi: Any,
    model: CrosstalkModel,
    flip: bool,
) -> QuantumCircuit:
    """Circuit of :func:`site_operations` on the qubits of the site, without the measurement."""
    from qiskit import QuantumCircuit as Circuit

    operations, opens = site_operations(
        errors.device, site, count, theta=theta, phi=phi, model=model, flip=flip
    )
    circuit = Circuit(len(site.qubits))
    until = end_seconds(errors.device, opens, flip=flip)
    append_timeline(circuit, errors, operations, qubits=site.qubits, until=until, model=model)
    return circuit


def end_seconds(device: DeviceProfile, opens: float, *, flip: bool) -> float:
    """When the products of a time step are measured whose window starts at ``opens``."""
    return opens + window_seconds(device) + (flip_seconds(device) if flip else 0.0)


def site_responses(errors: DeviceErrors, site: Site, most: int) -> Array:
    """C by (readout, signed count) at one site, (2, 2·most + 1, 3, 3): twirled, then raw."""
    model = crosstalk_model(errors.device)
    plain = _fitted(_late(errors, (site.qubit,), (), 0.0, [_ground(0)], model))[:, 0]
    values = np.tile(plain[:, None], (1, 2 * most + 1, 1, 1))
    if site.neighbour is not None and most:
        made = {sign: word(errors.device, site, sign, model=model) for sign in (1, -1)}
        for sign in (1, -1):
            if sign > 0 or made[-1] != made[1]:  # next to a word the sign hardly ever matters
                words = _words(errors, site, sign, most, model)
            for count, found in enumerate(words, 1):
                values[:, most + sign * count] = found
    return values


def _words(
    errors: DeviceErrors, site: Site, sign: int, most: int, model: CrosstalkModel
) -> list[Array]:
    """C, (readout, 3, 3), of the words of one sign with 1, 2, … units."""
    made = word(errors.device, site, sign, model=model)
    qubits = site.qubits if site.next_to is None else site.qubits[1:]
    begun = qubits[:1] if site.next_to is None else ()
    middle = made.middle is not None
    prepare, unit, turned, *endings = _superops(
        errors,
        qubits,
        [
            _Part(made.prepare, made.edge_seconds, begun),
            _Part(made.unit, made.unit_seconds, qubits),
            _Part(made.middle or (), made.edge_seconds if middle else 0.0, qubits),
            *(_ending(errors, site, made, flip) for flip in (False, True) if begun),
        ],
        model=model,
    )
    units = list(itertools.accumulate([unit] * most, operator.matmul))
    powers = [many @ (turned @ many if middle else np.eye(len(unit))) @ prepare for many in units]
    if site.next_to is not None:
        states = [power @ _ground(len(qubits)) for power in powers]
        late = _late(errors, site.qubits, made.restore, made.edge_seconds, states, model)
        return list(_fitted(late).swapaxes(0, 1))
    inputs, into = _inputs(errors, site.qubit, model), _embedding(len(qubits))
    read = _readout(errors, site.qubit) @ _marginal(len(qubits))
    plain, flipped = (
        [np.real(read @ ending @ power @ into) for power in powers] for ending in endings
    )
    return [
        np.stack([inputs @ (p - f) / 2, inputs @ p]) for p, f in zip(plain, flipped, strict=True)
    ]


def _ending(errors: DeviceErrors, site: Site, made: Word, flip: bool) -> _Part:
    """Restoring and the window, with the last gates of the product."""
    qubit, opens = errors.device.qubits[site.qubit], made.edge_seconds
    operations = [*made.restore, Operation("sx", (site.qubit,), opens, qubit.sx_duration)]
    if flip:
        last = opens + window_seconds(errors.device)
        operations.append(Operation("x", (site.qubit,), last, qubit.x_duration))
    return _Part(operations, end_seconds(errors.device, opens, flip=flip), site.qubits)


def _late(
    errors: DeviceErrors,
    qubits: Sequence[int],
    restore: Sequence[Operation],
    opens: float,
    states: Sequence[Complex],
    model: CrosstalkModel,
) -> Array:
    """⟨Z⟩ of a product that runs in the window, (flip, state, θ, φ).

    Args:
        qubits: the product's, then those of the crosstalk next to it.
        restore: what is left of that word, from 0 on; the window opens at ``opens``.
        states: states in which the word's qubits may be before that.
    """
    site, row = Site(qubits[0]), _readout(errors, qubits[0])
    parts = []
    for flip, a, b in np.ndindex(2, 3, 3):
        product, _ = product_operations(
            errors.device, site, 0, theta=_ANGLES[a], phi=_ANGLES[b], model=model, flip=bool(flip)
        )
        operations = [*restore, *shifted(product, opens)]
        until = end_seconds(errors.device, opens, flip=bool(flip))
        parts.append(_Part(operations, until, qubits[1:]))
    channels = _superops(errors, qubits, parts, model=model)
    joint = np.stack([_joint(_ground(1), state) for state in states], axis=1)
    read = row @ _marginal(len(qubits))
    means = [np.real(read @ channel @ joint) for channel in channels]
    return np.stack(means).reshape(2, 3, 3, -1).transpose(0, 3, 1, 2)


def _fitted(expected: Array) -> Array:
    """C from ⟨Z⟩ at nine pairs of angles: (flip, …, θ, φ) → (twirled and raw, …, 3, 3)."""
    angles = np.array(_ANGLES)
    inverse = np.linalg.inv(np.stack([np.ones(3), np.cos(angles), np.sin(angles)], axis=1))
    both = np.stack([(expected[0] - expected[1]) / 2, expected[0]])
    result: Array = np.einsum("ai,...ij,bj->...ab", inverse, both, inverse)
    return result


def _inputs(errors: DeviceErrors, qubit: int, model: CrosstalkModel) -> Array:
    """Pauli vectors before the block as coefficients of f(θ) f(φ), (3, 3, 4)."""
    duration = errors.device.qubits[qubit].sx_duration
    gate = [Operation("sx", (qubit,), 0.0, duration)]
    sx = _reduced(_superops(errors, (qubit,), [_Part(gate, duration)], model=model)[0], 1)
    terms = rz_terms()
    first = np.stack([sx @ term @ sx @ np.array([1.0, 0.0, 0.0, 1.0]) for term in terms])
    result: Array = np.einsum("bij,aj->abi", terms, first)
    return result


@dataclass(frozen=True)
class _Part:
    """Operations of a part of a time step, its end in seconds, and what had begun before it."""

    operations: Sequence[Operation]
    until: float
    begun: Sequence[int] = ()


def _superops(
    errors: DeviceErrors, qubits: Sequence[int], parts: Sequence[_Part], *, model: CrosstalkModel
) -> list[Complex]:
    """Superoperators (column-stacked) of parts on the same qubits, in one run of Aer."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator
    from qiskit_aer.library import SaveSuperOp

    circuits = []
    for part in parts:
        circuit = QuantumCircuit(len(qubits))
        append_timeline(
            circuit,
            errors,
            part.operations,
            qubits=qubits,
            until=part.until,
            model=model,
            begun=part.begun,
        )
        circuit.append(SaveSuperOp(len(qubits)), circuit.qubits)
        circuits.append(circuit)
    noise = errors.model(qubits)
    # The circuits are tiny: threads would cost more time than they save.
    simulator = AerSimulator(method="superop", noise_model=noise, max_parallel_threads=1)
    result = simulator.run(circuits, shots=1).result()
    return [np.asarray(result.data(index)["superop"]) for index in range(len(circuits))]


def _readout(errors: DeviceErrors, index: int) -> Array:
    """Measured ⟨Z⟩ of a qubit as a linear form on its Pauli vector (I, X, Y, Z)."""
    qubit = errors.device.qubits[index]
    offset = qubit.p0_given_1 - qubit.p1_given_0
    return np.array([offset, 0.0, 0.0, 1 - qubit.p0_given_1 - qubit.p1_given_0])


def _ground(width: int) -> Complex:
    """|0…0⟩⟨0…0| as a column-stacked vector."""
    vector = np.zeros(4**width, complex)
    vector[0] = 1
    return vector


def _joint(first: Complex, rest: Complex) -> Complex:
    """Product state of local qubit 0 and the others, column-stacked."""
    width = round(np.log2(len(rest)) / 2)
    # Column-stacked, so each is the transpose of the density matrix.
    joint = np.kron(rest.reshape(2**width, 2**width), first.reshape(2, 2)).astype(complex)
    return joint.reshape(-1)


@cache
def _marginal(width: int) -> Complex:
    """State, column-stacked → Pauli vector (I, X, Y, Z) of local qubit 0; shape (4, 4^width)."""
    rest = 2 ** (width - 1)
    states = np.eye(4**width, dtype=complex).reshape(rest, 2, rest, 2, -1)
    rho = np.einsum("rjri...->ij...", states)
    return np.stack(
        [
            rho[0, 0] + rho[1, 1],
            rho[0, 1] + rho[1, 0],
            1j * (rho[0, 1] - rho[1, 0]),
            rho[0, 0] - rho[1, 1],
        ]
    )


@cache
def _embedding(width: int) -> Complex:
    """Pauli vector of local qubit 0 → state, the others in |0⟩; shape (4^width, 4)."""
    paulis = [np.eye(2), [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]
    others = _ground(width - 1)
    return np.stack(
        [_joint(np.asarray(p, complex).T.reshape(-1), others) / 2 for p in paulis], axis=1
    )


def _reduced(channel: Complex, width: int) -> Array:
    """Pauli transfer matrix of local qubit 0, the others starting in |0⟩ and discarded."""
    return np.real(_marginal(width) @ channel @ _embedding(width))


def rz_terms() -> Array:
    """Pauli transfer matrix of rz(t + π) as coefficients of (1, cos t, sin t), shape (3, 4, 4)."""
    constant, cosine, sine = np.zeros((3, 4, 4))
    constant[0, 0] = constant[3, 3] = 1.0
    cosine[1, 1] = cosine[2, 2] = -1.0
    sine[1, 2], sine[2, 1] = 1.0, -1.0
    return np.stack([constant, cosine, sine])
