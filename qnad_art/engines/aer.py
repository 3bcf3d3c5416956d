"""The circuit engine: every product really runs on Aer's density-matrix simulator.

The independent check of the compiled path, and a slow but literal way to run small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qnad_art.circuits.aer_noise import DeviceErrors, site_noise_model, with_readout
from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site, product_circuit
from qnad_art.circuits.timed import product_circuit_in_time
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Array, CircuitEngine, Integers

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter
    from qiskit_aer.noise import NoiseModel

CIRCUITS_A_RUN = 2_000


@dataclass(frozen=True)
class _Batch:
    """Products of one site, sorted by pair count; all arrays (n,)."""

    site: Site
    theta: Array
    phi: Array
    pairs: Integers


class AerEngine(CircuitEngine):
    """Runs products on Aer; settings as :class:`~qnad_art.engines.circuit.CircuitEngine`."""

    def __init__(self, device: DeviceProfile, **settings: Any) -> None:
        super().__init__(device, **settings)
        self._noise_models: dict[Site, Any] = {}
        self._errors = DeviceErrors(device)

    def expectations(
        self, theta: Array, phi: Array, sites: Sequence[Site], site: Integers, pairs: Integers
    ) -> Array:
        """See :meth:`~qnad_art.engines.circuit.CircuitEngine.expectations`."""
        result = np.empty(len(theta))
        for index in np.unique(site):
            (members,) = np.nonzero(site == index)
            members = members[np.argsort(pairs[members], kind="stable")]
            for chunk in np.array_split(members, -(-len(members) // CIRCUITS_A_RUN)):
                batch = _Batch(sites[int(index)], theta[chunk], phi[chunk], pairs[chunk])
                result[chunk] = self._run(batch)
        return result

    def _run(self, batch: _Batch) -> Array:
        """Products of one site; twirled readout draws at random which shots are flipped."""
        if self.shots is None:
            plain = self._exact(batch, flip=False)
            if self.readout == "raw":
                return plain
            return (plain - self._exact(batch, flip=True)) / 2
        shots = np.full(len(batch.theta), self.shots)
        if self.readout == "raw":
            return self._counted(batch, shots, flip=False) / self.shots
        flipped = self.random.binomial(shots, 0.5)
        total = self._counted(batch, shots - flipped, flip=False)
        return (total - self._counted(batch, flipped, flip=True)) / self.shots

    def _exact(self, batch: _Batch, *, flip: bool) -> Array:
        """⟨Z⟩ from the density matrix, the readout error applied to its probabilities."""
        result = self._execute(batch, flip=flip, measure=False, shots=1)
        found = np.array([result.data(i)["probabilities"] for i in range(len(batch.theta))])
        qubit = self.device.qubits[batch.site.qubit]
        # Both probabilities are used: Aer's gate errors preserve the trace to 1e-8 only.
        means = np.array([1 - 2 * qubit.p1_given_0, 2 * qubit.p0_given_1 - 1])
        expectations: Array = found @ means
        return expectations

    def _counted(self, batch: _Batch, shots: Integers, *, flip: bool) -> Array:
        """Sum of ±1 outcomes of ``shots`` measurements each.

        One Aer run has one number of shots: the largest is run, and each product keeps a random
        subset of its outcomes.
        """
        most = max(int(shots.max()), 1)
        result = self._execute(batch, flip=flip, measure=True, shots=most)
        ones = np.array([result.get_counts(i).get("1", 0) for i in range(len(batch.theta))])
        kept = self.random.hypergeometric(ones, most - ones, shots)
        return (shots - 2 * kept).astype(float)

    def _execute(self, batch: _Batch, *, flip: bool, measure: bool, shots: int) -> Any:
        """Aer's result: a circuit for each pair count, run with the angles of each product."""
        from qiskit.circuit import ClassicalRegister, Parameter
        from qiskit_aer import AerSimulator
        from qiskit_aer.library import SaveProbabilities

        if batch.site not in self._noise_models:
            self._noise_models[batch.site] = self._noise_model(batch.site)
        circuits, bindings = [], []
        for pairs in np.unique(batch.pairs):  # ascending, as the batch is
            angles = {"theta": Parameter("theta"), "phi": Parameter("phi")}
            circuit = self._circuit(batch.site, int(pairs), flip, angles)
            if measure:
                circuit.add_register(ClassicalRegister(1))
                circuit.measure(0, 0)
            else:
                circuit.append(SaveProbabilities(1), [0])
            chosen = batch.pairs == pairs
            circuits.append(circuit)
            bindings.append(
                {
                    angles["theta"]: batch.theta[chosen].tolist(),
                    angles["phi"]: batch.phi[chosen].tolist(),
                }
            )
        simulator = AerSimulator(
            method="density_matrix", noise_model=self._noise_models[batch.site]
        )
        seed = int(self.random.integers(2**31))
        return simulator.run(
            circuits, shots=shots, parameter_binds=bindings, seed_simulator=seed
        ).result()

    def _circuit(
        self, site: Site, pairs: int, flip: bool, angles: dict[str, Parameter]
    ) -> QuantumCircuit:
        """The circuit of a product, without its measurement."""
        model = crosstalk_model(self.device)
        if not model.timed:
            return product_circuit(self.device, site, pairs, **angles, flip=flip, measure=False)
        return product_circuit_in_time(self._errors, site, pairs, **angles, model=model, flip=flip)

    def _noise_model(self, site: Site) -> NoiseModel:
        """Noise of the circuits of a site, readout included."""
        if not crosstalk_model(self.device).timed:
            return site_noise_model(self.device, site)
        return with_readout(self._errors.model(site.qubits), self.device, site.qubit)
