"""The circuit engine: every product really runs on Aer's density-matrix simulator.

The independent check of the compiled path, and a slow but literal way to run small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qnad_art.circuits import Site, product_circuit
from qnad_art.device import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.kernels import contraction, offsets, weight_scales
from qnad_art.noise import site_noise_model
from qnad_art.quantum_layer import QuantumLayer
from qnad_art.response import READOUTS, Readout

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

MAX_PRODUCTS = 2_000_000
CIRCUITS_A_RUN = 2_000


@dataclass(frozen=True)
class _Batch:
    """Products of one site, sorted by pair count; all arrays (n,)."""

    site: Site
    theta: Array
    phi: Array
    pairs: Integers


class AerEngine:
    """Runs products circuit by circuit.

    Args:
        device: the noise.
        readout: ``"twirled"`` or ``"raw"``.
        shots: counts a product; ``None`` for the exact expectation from the density matrix.
        seed: of Aer's sampling and of the twirl.
        max_products: refuse a layer call that needs more circuits than this.
    """

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
        if shots is not None and shots < 1:
            raise InvalidInputError(f"shots is {shots}; give a whole number from 1, or None.")
        self.device = device
        self.readout = readout
        self.shots = shots
        self.max_products = max_products
        self._random = np.random.default_rng(seed)
        self._noise_models: dict[Site, Any] = {}

    def __call__(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """The layer's output from circuits; its gradient is the compiled layer's."""
        mean, _ = layer.moments(x)
        with torch.no_grad():
            circuits = self._layer(layer, x.detach())
        return mean + (circuits.to(mean.dtype) - mean).detach()

    def expectations(
        self, theta: Array, phi: Array, sites: Sequence[Site], site: Integers, pairs: Integers
    ) -> Array:
        """⟨Z⟩ of products, exact or estimated from counts.

        Args:
            theta, phi: angles in rad, shape (n,).
            sites: what ``site`` indexes.
            site, pairs: index and signed pair count, shape (n,).
        """
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
        flipped = self._random.binomial(shots, 0.5)
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
        kept = self._random.hypergeometric(ones, most - ones, shots)
        return (shots - 2 * kept).astype(float)

    def _execute(self, batch: _Batch, *, flip: bool, measure: bool, shots: int) -> Any:
        """Aer's result: a circuit for each pair count, run with the angles of each product."""
        from qiskit.circuit import Parameter
        from qiskit_aer import AerSimulator
        from qiskit_aer.library import SaveProbabilities

        if batch.site not in self._noise_models:
            self._noise_models[batch.site] = site_noise_model(self.device, batch.site)
        circuits, bindings = [], []
        for pairs in np.unique(batch.pairs):  # ascending, as the batch is
            angles = {"theta": Parameter("theta"), "phi": Parameter("phi")}
            circuit = product_circuit(
                self.device, batch.site, int(pairs), **angles, flip=flip, measure=measure
            )
            if not measure:
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
        seed = int(self._random.integers(2**31))
        return simulator.run(
            circuits, shots=shots, parameter_binds=bindings, seed_simulator=seed
        ).result()

    def _layer(self, layer: QuantumLayer, x: Tensor) -> Tensor:
        """Sum of a layer's products, scaled back, plus bias."""
        scale_x = layer.input_scale
        assert scale_x is not None
        windows, executed, shape = layer.windows(x)
        images, groups, fan_in, positions = windows.shape
        outputs = layer.weight.shape[0]
        count = int(executed.sum()) * images * (outputs // groups)
        if count > self.max_products:
            raise InvalidInputError(
                f"This layer call needs {count:,} circuits, more than max_products="
                f"{self.max_products:,}. Pass fewer images, or choose smaller layers."
            )
        theta = np.arcsin((windows.double() / scale_x).clamp(-1, 1).cpu().numpy())
        mask = executed.bool().cpu().numpy()[0]
        rows = layer.weight.detach().double().flatten(1).cpu()
        scale_w = weight_scales(rows, layer.execution)[:, 0]
        phi = np.arcsin((rows / scale_w.clamp_min(1e-300)[:, None]).clamp(-1, 1).numpy())
        sites = layer.execution.table.sites
        site, pairs = layer.site.flatten(1).cpu().numpy(), layer.pairs.flatten(1).cpu().numpy()
        offset = offsets(layer.site, layer.pairs, layer.execution).cpu().numpy()
        sums = np.empty((images, outputs, positions))
        for output in range(outputs):
            group = output // (outputs // groups)
            where = np.broadcast_to(mask[group], (images, fan_in, positions))
            products = np.zeros(where.shape)

            def spread(values: Any, where: npt.NDArray[np.bool_] = where) -> Any:
                return np.broadcast_to(values[None, :, None], where.shape)[where]

            products[where] = self.expectations(
                theta[:, group][where],
                spread(phi[output]),
                sites,
                spread(site[output]),
                spread(pairs[output]),
            )
            products[where] -= spread(offset[output])
            sums[:, output] = products.sum(1)
        gain = contraction(layer.site, layer.pairs, layer.execution).cpu()
        result: Tensor = torch.as_tensor(sums) * (scale_x * scale_w / gain)[:, None]
        if layer.bias is not None:
            result = result + layer.bias.detach().cpu().double()[:, None]
        return result.view(shape).to(x.device)
