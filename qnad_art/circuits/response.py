"""Response tables: nine numbers that describe a noisy product completely.

The noise channels of a product circuit do not depend on θ and φ (``rz`` is virtual), and each
angle occurs once. For any noise, therefore,

    ⟨Z⟩ = f(θ)ᵀ C f(φ),   f(t) = (1, cos t, sin t),   C ∈ ℝ³ˣ³

(a Fourier series of degree one in each angle; Schuld, Sweke, Meyer, PRA 103, 032430, 2021,
doi 10.1103/PhysRevA.103.032430). Aer computes each gate and each injection block as an exact
superoperator. C follows from products of 4×4 Pauli transfer matrices.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from qnad_art.circuits.aer_noise import DeviceErrors, site_noise_model
from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import phase_turn
from qnad_art.circuits.product import Site, append_pair, prepare_neighbour
from qnad_art.circuits.timed import rz_terms, site_responses
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import CacheWarning, InvalidInputError
from qnad_art.files.atomic import cache_directory, write_bytes

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Readout = Literal["twirled", "raw"]
READOUTS: tuple[Readout, ...] = ("twirled", "raw")
Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

MAX_PAIRS = 8
"""Default for the largest number of injected pairs in a table under ``paper``."""
MAX_UNITS = 20
"""Default under crosstalk models in time, whose smallest units are waits of 0.06 rad."""
MOST_PAIRS = 127
"""Largest pair count that a plan can store (int8)."""
_TABLE_VERSION = 1


@dataclass(frozen=True)
class ResponseTable:
    """The matrix C for every site and signed pair count of one device with one kind of readout.

    ``values[site, pairs + max_pairs]`` is C; its rows belong to f(θ), its columns to f(φ). A site
    without a neighbour has the same C at every count, and only count 0 is meaningful there.
    """

    device: str
    device_hash: str
    readout: Readout
    sites: tuple[Site, ...]
    values: Array
    turns: Array
    """By site and signed count, how far the weight's phase turns: rad, not wrapped."""

    @property
    def max_pairs(self) -> int:
        """Largest absolute pair count."""
        return int(self.values.shape[1] - 1) // 2

    @cached_property
    def index(self) -> dict[Site, int]:
        """Position of each site in ``values``."""
        return {site: position for position, site in enumerate(self.sites)}

    def expectation(self, theta: Array, phi: Array, site: Integers, pairs: Integers) -> Array:
        """⟨Z⟩ of products; angles in rad, ``site`` as index, all arguments of one shape."""
        return self.bilinear(_fourier(theta), _fourier(phi), site, pairs)

    def bilinear(self, first: Array, second: Array, site: Integers, pairs: Integers) -> Array:
        """⟨Z⟩ of products, from (1, cos θ, sin θ) and (1, cos φ, sin φ) on the last axis."""
        values = self.values[site, np.asarray(pairs) + self.max_pairs]
        result: Array = np.einsum("...a,...ab,...b->...", first, values, second)
        return result


def response_table(
    device: DeviceProfile,
    sites: Sequence[Site],
    *,
    max_pairs: int = MAX_PAIRS,
    readout: Readout = "twirled",
    cache: bool = True,
) -> ResponseTable:
    """Exact response of ``sites`` on ``device``, read from the disk cache or computed by Aer.

    Args:
        device: the device that defines the noise.
        sites: the sites to tabulate; their order is kept.
        max_pairs: pair counts from ``-max_pairs`` to ``max_pairs`` are tabulated.
        readout: ``"twirled"`` (half of the shots have an X before the measurement, and their sign
            is reversed) or ``"raw"``.
        cache: whether to use the cache under :func:`~qnad_art.files.atomic.cache_directory`.
    """
    check_table(readout, max_pairs)
    sites = tuple(sites)
    path = _cache_path(device, sites, max_pairs)
    both = _read(path, (2, len(sites), 2 * max_pairs + 1, 3, 3)) if cache else None
    if both is None:
        errors = DeviceErrors(device)
        both = np.stack([_responses(errors, site, max_pairs) for site in sites], axis=1)
        if cache:
            _write(path, both)
    values = both[READOUTS.index(readout)]
    turns = _turns(device, sites, values)
    return ResponseTable(device.name, device.hash, readout, sites, values, turns)


def _turns(device: DeviceProfile, sites: tuple[Site, ...], values: Array) -> Array:
    """By site and signed count, how far the weight's phase turns."""
    most = values.shape[1] // 2
    counts = np.arange(-most, most + 1)
    if crosstalk_model(device).timed:
        return np.array([[phase_turn(device, site, int(k)) for k in counts] for site in sites])
    # Under `paper` each pair turns by the same angle, which depends on gate and direction (nearly
    # the same with ecr, whose target does not keep its state).
    once = values[:, most + min(most, 1), 2]
    return np.outer(np.arctan2(once[:, 1], once[:, 2]), counts)


def usual_pairs(device: DeviceProfile) -> int:
    """Default for the largest count in a table, :data:`MAX_PAIRS` or :data:`MAX_UNITS`."""
    return MAX_UNITS if crosstalk_model(device).timed else MAX_PAIRS


def _responses(errors: DeviceErrors, site: Site, max_pairs: int) -> Array:
    """C by (readout, signed pairs) at one site, shape (2, 2·max_pairs + 1, 3, 3)."""
    if crosstalk_model(errors.device).timed:
        return site_responses(errors, site, max_pairs)
    return _site_values(errors.device, site, max_pairs)


def check_table(readout: str, max_pairs: int) -> None:
    """Raise :class:`InvalidInputError` for a table that there cannot be."""
    if readout not in READOUTS:
        raise InvalidInputError(f"readout {readout!r} is not one of {', '.join(READOUTS)}.")
    if not 0 <= max_pairs <= MOST_PAIRS:
        raise InvalidInputError(f"max_pairs is {max_pairs}; it must lie in 0 to {MOST_PAIRS}.")


def _site_values(device: DeviceProfile, site: Site, max_pairs: int) -> Array:
    """C at one site for each readout and pair count, shape (2, 2·max_pairs + 1, 3, 3)."""
    from qiskit import QuantumCircuit

    width = len(site.qubits)
    circuits = [QuantumCircuit(width) for _ in range(2)]
    circuits[0].sx(0)
    circuits[1].x(0)
    for circuit in circuits:
        _save_channel(circuit, 1)
    if site.neighbour is not None and max_pairs:
        circuits += [_block_circuit(device, site, sign * max_pairs) for sign in (1, -1)]
    channels = _target_channels(device, site, circuits)
    sx, x = channels[0]["1"], channels[1]["1"]
    blocks = np.tile(np.eye(4), (2 * max_pairs + 1, 1, 1))
    for sign, saved in zip((1, -1), channels[2:], strict=False):
        for count, channel in saved.items():
            blocks[max_pairs + sign * int(count)] = channel
    plain = _readout_row(device, site)
    twirled = (plain - plain @ x) / 2
    return np.stack([_fourier_coefficients(row, sx, blocks) for row in (twirled, plain)])


def _block_circuit(device: DeviceProfile, site: Site, pairs: int) -> QuantumCircuit:
    """The injection block of ``pairs``; its channel is saved after every pair.

    The neighbour is not flipped back, because that would not affect the product qubit.
    """
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(len(site.qubits))
    prepare_neighbour(circuit, pairs)
    for count in range(1, abs(pairs) + 1):
        append_pair(circuit, device, site)
        _save_channel(circuit, count)
    return circuit


def _save_channel(circuit: QuantumCircuit, count: int) -> None:
    """Make Aer save the superoperator of the circuit so far under the label ``count``."""
    from qiskit_aer.library import SaveSuperOp

    circuit.append(SaveSuperOp(circuit.num_qubits, label=str(count)), circuit.qubits)


def _target_channels(
    device: DeviceProfile, site: Site, circuits: Sequence[QuantumCircuit]
) -> list[dict[str, Array]]:
    """4×4 Pauli transfer matrices of local qubit 0; the others start in |0⟩ and are traced out."""
    from qiskit.quantum_info import PTM, SuperOp
    from qiskit_aer import AerSimulator

    noise = site_noise_model(device, site, readout=False)
    simulator = AerSimulator(method="superop", noise_model=noise)
    result = simulator.run(list(circuits), shots=1).result()
    rest = 2 ** (len(site.qubits) - 1)
    channels = []
    for position in range(len(circuits)):
        reduced = {}
        for label, channel in result.data(position).items():
            # Column-stacked: rows are (j', i'), columns (j, i); qubit 0 is the fastest index.
            tensor = np.asarray(channel).reshape((rest, 2) * 4)
            discarded = np.einsum("rjriJI->jiJI", tensor[:, :, :, :, 0, :, 0, :])
            reduced[label] = np.real(PTM(SuperOp(discarded.reshape(4, 4))).data)
        channels.append(reduced)
    return channels


def _readout_row(device: DeviceProfile, site: Site) -> Array:
    """Measured ⟨Z⟩ as a linear form on the Pauli vector (I, X, Y, Z)."""
    qubit = device.qubits[site.qubit]
    offset = qubit.p0_given_1 - qubit.p1_given_0
    contrast = 1 - qubit.p0_given_1 - qubit.p1_given_0
    return np.array([offset, 0.0, 0.0, contrast])


def _fourier_coefficients(row: Array, sx: Array, blocks: Array) -> Array:
    """C of ``row · sx · block · rz(φ+π) · sx · rz(θ+π) · sx |0⟩`` for each block, (n, 3, 3)."""
    rotations = rz_terms()
    inputs = np.stack([sx @ term @ sx @ np.array([1.0, 0.0, 0.0, 1.0]) for term in rotations])
    outputs = np.einsum("i,nij,bjk->nbk", row @ sx, blocks, rotations)
    coefficients: Array = np.einsum("nbk,ak->nab", outputs, inputs)
    return coefficients


def _fourier(angle: Array) -> Array:
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=-1)


def _cache_path(device: DeviceProfile, sites: tuple[Site, ...], max_pairs: int) -> Path:
    key: list[Any] = [_TABLE_VERSION, device.hash, [site.to_json() for site in sites], max_pairs]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return cache_directory() / "response" / f"{digest}.safetensors"


def _read(path: Path, shape: tuple[int, ...]) -> Array | None:
    """The cached values; ``None`` if there are none or, with a warning, if they are damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            values: Array = file.get_tensor("values")
            digest = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"Cache entry {path} is damaged ({error}); computing it again.",
            CacheWarning,
            stacklevel=3,
        )
        return None
    if digest != _digest(values) or values.shape != shape:
        warnings.warn(
            f"Cache entry {path} fails its checksum; computing it again.",
            CacheWarning,
            stacklevel=3,
        )
        return None
    return values


def _write(path: Path, values: Array) -> None:
    """Write the entry atomically, since several processes may write it at the same time."""
    from safetensors.numpy import save

    data = save({"values": np.ascontiguousarray(values)}, metadata={"sha256": _digest(values)})
    try:
        write_bytes(path, data)
    except OSError as error:
        warnings.warn(f"Cannot write the cache entry {path}: {error}.", CacheWarning, stacklevel=3)


def _digest(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
