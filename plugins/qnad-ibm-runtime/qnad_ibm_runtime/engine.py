"""The engine: products packed side by side, counted on a device, and given back one by one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import Readout
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import MAX_PRODUCTS, Array, CircuitEngine, Integers
from qnad_art.errors import DeviceError
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_ibm_runtime.connection import Connection, log
from qnad_ibm_runtime.cost import Cost
from qnad_ibm_runtime.jobs import Jobs, Work
from qnad_ibm_runtime.ledger import Ledger
from qnad_ibm_runtime.packing import JointCircuit, pack
from qnad_ibm_runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

REP_DELAY = 250e-6
"""Seconds between shots where neither settings nor device say: IBM's usual default."""
SAME_DURATION = 1e-9
"""Seconds by which a gate may be longer or shorter than the profile says."""


@dataclass(frozen=True)
class _Half:
    """All rows of one polarity of the readout: shots of each, and whether an X comes before."""

    shots: int
    flip: bool


class IbmRuntimeEngine(CircuitEngine):
    """Counts products on IBM hardware, or locally on a fake backend, by SamplerV2.

    Every call is *work*, named by device, angles, sites, shots and seed, and by how often this
    engine has finished the same work before. Work whose jobs were sent is fetched: after a lost
    connection call again; with ``jobs_file``, a new engine with the same seed fetches as well.

    Args:
        device: profile of the backend (``load_device(backend)``); its gates and couplings count,
            its noise does not.
        readout: ``"twirled"`` sends every circuit twice, with half of the shots each.
        shots: of a product.
        seed: names the draw; of the simulator, where the backend is a local one.
        max_products: as for every engine.
        backend: a name or a Qiskit backend; or ``QNAD_IBM_BACKEND``. Without it nothing is sent.
        service: a ``QiskitRuntimeService``, if not that of the saved account.
        **settings: of :class:`~qnad_ibm_runtime.settings.RuntimeSettings`.

    Raises:
        InvalidInputError: no backend was named, or a setting cannot be used.
    """

    exact: ClassVar[bool] = False

    def __init__(
        self,
        device: DeviceProfile,
        *,
        readout: Readout = "twirled",
        shots: int | None = None,
        seed: int = 0,
        max_products: int = MAX_PRODUCTS,
        backend: BackendV2 | str | None = None,
        service: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(device, readout=readout, shots=shots, seed=seed, max_products=max_products)
        self.seed = seed
        given, named = (None, backend) if isinstance(backend, str) else (backend, None)
        if named is not None:
            settings["backend"] = named
        self.settings = RuntimeSettings.of(**settings)
        self.connection = Connection(self.settings, backend=given, service=service)
        self._finished: Counter[str] = Counter()

    def expectations(
        self, theta: Array, phi: Array, sites: Sequence[Site], site: Integers, pairs: Integers
    ) -> Array:
        """See :meth:`~qnad_art.engines.circuit.CircuitEngine.expectations`.

        Raises:
            CostError: more shots than ``max_shots``; nothing was sent.
            JobError: the connection or a job failed for good; call again to fetch the rest.
            DeviceError: the backend is not the device that the profile describes; under a crosstalk
                model in time, also if its gates are shorter or longer.
        """
        self._check_backend()
        packed = pack(self.device, sites, site, pairs, most=self.settings.side_by_side)
        name = self._name(theta, phi, packed)
        works = list(self._works(packed, f"{name} {self._finished[name]}"))
        log.info("%s", self._cost(packed, works, len(theta)))
        ones = self._jobs.run(works, theta, phi)
        self._finished[name] += 1
        outcome = np.zeros(len(theta))
        for work, counted in zip(works, ones, strict=True):
            products = np.concatenate([circuit.products.ravel() for circuit in work.circuits])
            sign = -1 if work.flip else 1
            outcome[products] += sign * (work.shots - 2 * counted)
        assert self.shots is not None
        return outcome / self.shots

    def cost(self, sites: Sequence[Site], site: Integers, pairs: Integers) -> Cost:
        """What :meth:`expectations` would send. Sends nothing itself."""
        packed = pack(self.device, sites, site, pairs, most=self.settings.side_by_side)
        return self._cost(packed, list(self._works(packed, "")), len(site))

    def layer_cost(self, layer: QuantumLayer, x: Tensor) -> Cost:
        """What running a layer on ``x`` would send. Sends nothing itself."""
        products = self.products(layer, x)
        return self.cost(products.sites, products.site, products.pairs)

    @cached_property
    def _jobs(self) -> Jobs:
        # Jobs that run here are gone with this process, so their ids are nothing to keep.
        ledger = Ledger(None if self.connection.local else self.settings.jobs_file)
        return Jobs(self.device, self.connection, ledger)

    def _cost(self, packed: Sequence[JointCircuit], works: Sequence[Work], products: int) -> Cost:
        backend = self.connection.backend
        delay = self.settings.rep_delay
        if delay is None:
            delay = getattr(backend, "default_rep_delay", None) or REP_DELAY
        return Cost(
            products=products,
            circuits=len(packed) * len(self._halves()),
            executions=sum(work.rows for work in works),
            shots=sum(work.total_shots for work in works),
            jobs=len(works),
            seconds=sum(work.seconds(self.device, backend.target, delay) for work in works),
        )

    def _halves(self) -> tuple[_Half, ...]:
        """Twirled readout: half of the shots with an X; the seed says where an odd one goes."""
        assert self.shots is not None
        if self.readout == "raw":
            return (_Half(self.shots, flip=False),)
        flipped = (self.shots + self.seed % 2) // 2
        halves = (_Half(self.shots - flipped, flip=False), _Half(flipped, flip=True))
        return tuple(half for half in halves if half.shots)

    def _works(self, packed: Sequence[JointCircuit], name: str) -> Iterator[Work]:
        """Jobs of one number of shots, at most ``shots_a_job``; circuits are divided by rows."""
        for half in self._halves():
            most = max(self.settings.shots_a_job // half.shots, 1)
            for number, circuits in enumerate(_divided(packed, most)):
                key = hashlib.sha256(f"{name} {half} {number} {most}".encode()).hexdigest()[:32]
                yield Work(key, circuits, half.flip, half.shots)

    def _name(self, theta: Array, phi: Array, packed: Sequence[JointCircuit]) -> str:
        """Digest of all that decides what is sent."""
        slots = [circuit.slots for circuit in packed]
        what = (self.connection.backend.name, self.device.hash, self.readout, self.shots, self.seed)
        digest = hashlib.sha256(f"{what} {self.settings.rep_delay} {slots}".encode())
        for circuit in packed:
            for angles in (theta, phi):
                digest.update(np.ascontiguousarray(angles[circuit.products], dtype=float).tobytes())
        return digest.hexdigest()

    def _check_backend(self) -> None:
        """The circuits are written in the profile's gates: the backend must have them."""
        backend = self.connection.backend
        gate = self.device.two_qubit_gate
        native = backend.target[gate] if gate in backend.target.operation_names else {}
        missing = [pair for pair in self.device.edge_of if pair not in native]
        if missing:
            raise DeviceError(
                f"Backend {backend.name} has no {gate} on qubits {missing[0]} as profile "
                f"{self.device.name} says ({len(missing)} such); use load_device(backend)."
            )
        if not crosstalk_model(self.device).timed:
            return
        for name, qubits, seconds in _durations(self.device):
            found = getattr(backend.target[name].get(qubits), "duration", None)
            if found is not None and abs(found - seconds) > SAME_DURATION:
                raise DeviceError(
                    f"On backend {backend.name} {name} on {qubits} takes {found:.4g} s, but "
                    f"{seconds:.4g} s in profile {self.device.name}: delays would be wrong. Use "
                    "load_device(backend)."
                )


def _durations(device: DeviceProfile) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Of every gate of a profile: name, qubits and seconds."""
    for index, qubit in enumerate(device.qubits):
        yield "sx", (index,), qubit.sx_duration
        yield "x", (index,), qubit.x_duration
    for edge in device.edges:
        yield device.two_qubit_gate, (edge.control, edge.target), edge.duration


def _divided(packed: Sequence[JointCircuit], most: int) -> Iterator[tuple[JointCircuit, ...]]:
    """Groups of joint circuits with at most ``most`` rows together."""
    group: list[JointCircuit] = []
    room = most
    for circuit in packed:
        rows = circuit.products
        while len(rows):
            group.append(JointCircuit(circuit.slots, rows[:room]))
            rows, room = rows[room:], room - len(group[-1].products)
            if not room:
                yield tuple(group)
                group, room = [], most
    if group:
        yield tuple(group)
