"""The engine: product circuits written in PennyLane's gates and run on ``default.mixed``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pennylane as qml
from pennylane.operation import Operator

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site, zz_angle
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Array, CircuitEngine, Integers
from qnad_pennylane.channels import gate_noise, readout, relaxation
from qnad_pennylane.timeline import operations_in_time

PRODUCTS_A_RUN = 256
"""Products of one circuit that are simulated at a time, to bound the memory."""

TWO_QUBIT = {"cx": qml.CNOT, "ecr": qml.ECR, "cz": qml.CZ}


class PennyLaneEngine(CircuitEngine):
    """Runs products on PennyLane's mixed-state simulator, a second opinion beside Aer.

    Settings as :class:`~qnad_art.engines.circuit.CircuitEngine`. Products of one site and pair
    count run as one circuit with many angles. Counts are drawn from its probabilities.
    """

    def expectations(
        self, theta: Array, phi: Array, sites: Sequence[Site], site: Integers, pairs: Integers
    ) -> Array:
        """See :meth:`~qnad_art.engines.circuit.CircuitEngine.expectations`."""
        result = np.empty(len(theta))
        for index, count in np.unique(np.stack([site, pairs], axis=1), axis=0):
            (members,) = np.nonzero((site == index) & (pairs == count))
            for chunk in np.array_split(members, -(-len(members) // PRODUCTS_A_RUN)):
                result[chunk] = self._products(
                    sites[int(index)], int(count), theta[chunk], phi[chunk]
                )
        return result

    def _products(self, site: Site, pairs: int, theta: Array, phi: Array) -> Array:
        """⟨Z⟩ of products of one site and pair count; twirled readout flips half of the shots."""
        plain = self._ones(site, pairs, theta, phi, flip=False)
        if self.readout == "raw":
            if self.shots is None:
                return 1 - 2 * plain
            return 1 - 2 * self._count(self.shots, plain) / self.shots
        flipped = self._ones(site, pairs, theta, phi, flip=True)
        if self.shots is None:
            return flipped - plain
        flips = self.random.binomial(self.shots, 0.5, len(theta))
        ones = self._count(self.shots - flips, plain) + flips - self._count(flips, flipped)
        return 1 - 2 * ones / self.shots

    def _count(self, shots: int | Integers, probability: Array) -> Integers:
        """How many of ``shots`` measurements gave 1: binomial, as each is independent."""
        counts: Integers = self.random.binomial(shots, probability.clip(0, 1))
        return counts

    def _ones(self, site: Site, pairs: int, theta: Array, phi: Array, *, flip: bool) -> Array:
        """Probability to read 1, shape (n,)."""
        model = crosstalk_model(self.device)
        if model.timed:
            operations = operations_in_time(
                self.device, site, pairs, theta, phi, model=model, flip=flip
            )
        else:
            operations = operations_of_paper(self.device, site, pairs, theta, phi, flip=flip)
        operations += readout(self.device.qubits[site.qubit], wire=0)
        tape = qml.tape.QuantumScript(operations, [qml.probs(wires=0)])
        simulator = qml.device("default.mixed", wires=len(site.qubits) if pairs else 1)
        (probabilities,) = qml.execute([tape], simulator)
        ones: Array = np.reshape(np.asarray(probabilities, dtype=float), (len(theta), 2))[:, 1]
        return ones


def operations_of_paper(
    device: DeviceProfile, site: Site, pairs: int, theta: Array, phi: Array, *, flip: bool
) -> list[Operator]:
    """Gates and noise of products under the crosstalk model ``paper``, up to the measurement.

    Wire 0 is the product's, as in :mod:`qnad_art.circuits.product`.

    Args:
        device: gives gates and noise.
        site, pairs: where, and the signed number of injected pairs.
        theta, phi: angles in rad, shape (n,); PennyLane runs all n at once.
        flip: an X before the measurement.
    """
    sx = [qml.SX(0), *_one_qubit_noise(device, site, 0, "sx")]
    operations = [*sx, qml.RZ(theta + np.pi, wires=0), *sx, qml.RZ(phi + np.pi, wires=0)]
    if pairs:
        prepare = [qml.X(1), *_one_qubit_noise(device, site, 1, "x")] if pairs < 0 else []
        operations += [*prepare, *_injected_gate(device, site) * (2 * abs(pairs)), *prepare]
    operations += sx
    if flip:
        operations += [qml.X(0), *_one_qubit_noise(device, site, 0, "x")]
    return operations


def _one_qubit_noise(device: DeviceProfile, site: Site, wire: int, gate: str) -> Sequence[Operator]:
    qubit = device.qubits[site.qubits[wire]]
    error, duration = getattr(qubit, f"{gate}_error"), getattr(qubit, f"{gate}_duration")
    return gate_noise([qubit], [wire], error=error, duration=duration)


def _injected_gate(device: DeviceProfile, site: Site) -> list[Operator]:
    """A two-qubit gate, its noise, a waiting product qubit's relaxation, and the parasitic ZZ."""
    physical = site.gate(device)
    edge = device.edge_of[physical]
    wires = [site.qubits.index(qubit) for qubit in physical]
    operations = [TWO_QUBIT[device.two_qubit_gate](wires=wires)]
    operations += gate_noise(
        [device.qubits[qubit] for qubit in physical],
        wires,
        error=edge.error,
        duration=edge.duration,
    )
    if site.partner is not None:
        operations += relaxation(device.qubits[site.qubit], 0, edge.duration)
    angle = zz_angle(device, site)
    if angle:
        operations.append(qml.IsingZZ(angle, wires=[0, 1]))
    return operations
