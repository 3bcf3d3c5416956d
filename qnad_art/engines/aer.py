"""The circuit engine: every product really runs on Aer's density-matrix simulator.

The independent check of the compiled path, and a slow but literal way to run small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qnad_art.circuits import Site, product_circuit
from qnad_art.device import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.kernels import contraction
from qnad_art.layers import QuantumLayer
from qnad_art.noise import site_noise_model
from qnad_art.response import READOUTS, Readout

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

MAX_PRODUCTS = 2_000_000
CIRCUITS_A_RUN = 2_000


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
        kinds, kind = np.unique(np.stack([site, pairs]), axis=1, return_inverse=True)
        for number, (site_index, count) in enumerate(kinds.T):
            (members,) = np.nonzero(kind.reshape(-1) == number)
            for chunk in np.array_split(members, -(-len(members) // CIRCUITS_A_RUN)):
                result[chunk] = self._run(
                    sites[int(site_index)], int(count), theta[chunk], phi[chunk]
                )
        return result

    def _run(self, site: Site, pairs: int, theta: Array, phi: Array) -> Array:
        """Products of one kind; twirled readout draws at random which shots are flipped."""
        if self.shots is None:
            plain = self._exact(site, pairs, theta, phi, flip=False)
            if self.readout == "raw":
                return plain
            return (plain - self._exact(site, pairs, theta, phi, flip=True)) / 2
        shots = np.full(len(theta), self.shots)
        if self.readout == "raw":
            return self._counted(site, pairs, theta, phi, shots, flip=False) / self.shots
        flipped = self._random.binomial(shots, 0.5)
        total = self._counted(site, pairs, theta, phi, shots - flipped, flip=False)
        return (total - self._counted(site, pairs, theta, phi, flipped, flip=True)) / self.shots

    def _exact(self, site: Site, pairs: int, theta: Array, phi: Array, *, flip: bool) -> Array:
        """⟨Z⟩ from the density matrix, the readout error applied to its probabilities."""
        from qiskit_aer.library import SaveProbabilities

        circuit, bindings = self._circuit(site, pairs, theta, phi, flip=flip, measure=False)
        circuit.append(SaveProbabilities(1), [0])
        result = self._simulator(site).run(circuit, shots=1, parameter_binds=[bindings]).result()
        ones = np.array([result.data(i)["probabilities"][1] for i in range(len(theta))])
        qubit = self.device.qubits[site.qubit]
        read_ones = ones * (1 - qubit.p0_given_1) + (1 - ones) * qubit.p1_given_0
        return 1 - 2 * read_ones

    def _counted(
        self, site: Site, pairs: int, theta: Array, phi: Array, shots: Integers, *, flip: bool
    ) -> Array:
        """Sum of ±1 outcomes of ``shots`` measurements each.

        One Aer run has one number of shots: the largest is run, and each product keeps a random
        subset of its outcomes.
        """
        circuit, bindings = self._circuit(site, pairs, theta, phi, flip=flip, measure=True)
        most = max(int(shots.max()), 1)
        seed = int(self._random.integers(2**31))
        run = self._simulator(site).run(
            circuit, shots=most, parameter_binds=[bindings], seed_simulator=seed
        )
        result = run.result()
        ones = np.array([result.get_counts(i).get("1", 0) for i in range(len(theta))])
        kept = self._random.hypergeometric(ones, most - ones, shots)
        return (shots - 2 * kept).astype(float)

    def _circuit(  # type: ignore[no-untyped-def]
        self, site: Site, pairs: int, theta: Array, phi: Array, *, flip: bool, measure: bool
    ):
        from qiskit.circuit import Parameter

        angles = Parameter("theta"), Parameter("phi")
        circuit = product_circuit(
            self.device,
            site,
            pairs,
            theta=angles[0],
            phi=angles[1],
            flip=flip,
            measure=measure,
        )
        return circuit, {angles[0]: theta.tolist(), angles[1]: phi.tolist()}

    def _simulator(self, site: Site):  # type: ignore[no-untyped-def]
        from qiskit_aer import AerSimulator

        return AerSimulator(
            method="density_matrix", noise_model=site_noise_model(self.device, site)
        )

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
        scale_w = rows.abs().amax(1)
        phi = np.arcsin((rows / scale_w.clamp_min(1e-300)[:, None]).clamp(-1, 1).numpy())
        sites = layer.execution.table.sites
        site, pairs = layer.site.flatten(1).cpu().numpy(), layer.pairs.flatten(1).cpu().numpy()
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
            sums[:, output] = products.sum(1)
        result = (
            torch.as_tensor(sums)
            * (scale_x * scale_w / contraction(layer.site, layer.pairs, layer.execution).cpu())[
                :, None
            ]
        )
        if layer.bias is not None:
            result = result + layer.bias.detach().cpu().double()[:, None]
        return result.view(shape).to(x.device)
