"""The product circuit: one qubit multiplies an activation by a weight, in native gates.

    sx · rz(θ+π) · sx · rz(φ+π) · [crosstalk block] · sx · (x) · measure Z

Without noise ⟨Z⟩ = sin θ · sin φ, so θ = arcsin x̂ and φ = arcsin ŵ give the product x̂·ŵ
(paper, section III.B). All circuits here use one to three *local* qubits: 0 is the product qubit,
1 is its neighbour, and 2 is the neighbour's partner in a spectator injection. :attr:`Site.qubits`
maps them to physical qubits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter

PARASITIC = "parasitic_zz"
"""Label of the rzz instruction that represents the always-on coupling during a gate."""
IDLE = "spectator_idle"
"""Label of the identity that represents the idle product qubit during a spectator gate."""


Kind = Literal["pairs", "wait", "echo"]
"""What a neighbour does: run gate pairs, wait in |1⟩, or wait in |1⟩ for half of an echo."""
KINDS: tuple[Kind, ...] = ("pairs", "wait", "echo")


@dataclass(frozen=True, order=True)
class Site:
    """The qubit that runs a product, and the neighbour that injects crosstalk into it.

    With ``neighbour=None``, no injection is possible. With ``partner=None``, injection is *direct*:
    the gate pair acts on the product qubit and its neighbour. Otherwise it is a *spectator*
    injection: the pair acts on the neighbour and its partner, and the idle product qubit is subject
    to the ZZ coupling with the neighbour (two hops; Algorithm 1, line 3). With ``kind="wait"``
    there are no gates: the neighbour waits in |1⟩. With ``kind="echo"`` the neighbour is in |1⟩ for
    half of the wait, and an X on the product's qubit in the middle cancels a detuned frequency.

    ``next_to`` is the qubit of another product, which the neighbour serves in the same time step.
    The product here starts when the neighbour has finished, and meets what it leaves behind.
    """

    qubit: int
    neighbour: int | None = None
    partner: int | None = None
    kind: Kind = "pairs"
    next_to: int | None = None

    def to_json(self) -> Any:
        """Plain data: the qubits alone where the rest is as by default."""
        if self.kind == "pairs" and self.next_to is None:
            return list(self.qubits)
        return {"qubits": list(self.qubits), "kind": self.kind, "next_to": self.next_to}

    @classmethod
    def from_json(cls, content: Any) -> Site:
        """The site that :meth:`to_json` wrote; raises TypeError, KeyError or ValueError."""
        plain = not isinstance(content, dict)
        qubits = [int(qubit) for qubit in (content if plain else content["qubits"])]
        if not 1 <= len(qubits) <= 3:
            raise ValueError(f"{len(qubits)} qubits; a site has one to three")
        neighbour = qubits[1] if qubits[1:] else None
        partner = qubits[2] if qubits[2:] else None
        if plain:
            return cls(qubits[0], neighbour, partner)
        kind, next_to = content["kind"], content["next_to"]
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not one of {', '.join(KINDS)}")
        met = None if next_to is None else int(next_to)
        return cls(qubits[0], neighbour, partner, kind, met)

    @property
    def qubits(self) -> tuple[int, ...]:
        """The physical qubits behind local qubits 0, 1 and 2."""
        return tuple(q for q in (self.qubit, self.neighbour, self.partner) if q is not None)

    def gate(self, device: DeviceProfile) -> tuple[int, int]:
        """Physical (control, target) of the injected gate, in a native direction of ``device``.

        The control is the qubit closest to the product. The gate preserves the Z basis of its
        control, so the coupling rotates the product's phase in one direction if the neighbour is in
        |0⟩ and in the other direction if it is in |1⟩.
        """
        if self.neighbour is None:
            raise InvalidInputError(f"{self} has no neighbour, so there is no gate to inject.")
        if self.partner is None:
            return device.native_gate(self.qubit, self.neighbour)
        return device.native_gate(self.neighbour, self.partner)


def product_circuit(
    device: DeviceProfile,
    site: Site,
    pairs: int,
    *,
    theta: float | Parameter,
    phi: float | Parameter,
    flip: bool = False,
    measure: bool = True,
) -> QuantumCircuit:
    """Build the circuit of one product.

    Args:
        device: defines the native gate, the durations and the ZZ rates of the injection.
        site: product qubit and neighbour.
        pairs: signed number of injected gate pairs. The sign is the polarity: a negative number
            prepares the neighbour in |1⟩.
        theta: arcsin of the scaled activation, in rad.
        phi: arcsin of the scaled weight, in rad.
        flip: add an X before the measurement, as the second half of twirled readout does. The
            caller must reverse the sign of the result.
        measure: end with a measurement of local qubit 0 into one classical bit.
    """
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(len(site.qubits), int(measure))
    circuit.sx(0)
    circuit.rz(theta + np.pi, 0)
    circuit.sx(0)
    circuit.rz(phi + np.pi, 0)
    if pairs:
        circuit.barrier()
        prepare_neighbour(circuit, pairs)
        for _ in range(abs(pairs)):
            append_pair(circuit, device, site)
        prepare_neighbour(circuit, pairs)
        circuit.barrier()
    circuit.sx(0)
    if flip:
        circuit.x(0)
    if measure:
        circuit.measure(0, 0)
    return circuit


def prepare_neighbour(circuit: QuantumCircuit, pairs: int) -> None:
    """Set the polarity: flip the neighbour if ``pairs`` is negative. A second call undoes it."""
    if pairs < 0:
        circuit.x(1)


def append_pair(circuit: QuantumCircuit, device: DeviceProfile, site: Site) -> None:
    """Append two native gates, which cancel except for their noise and their parasitic ZZ."""
    for _ in range(2):
        append_gate(circuit, device, site)
        circuit.barrier()


def append_gate(circuit: QuantumCircuit, device: DeviceProfile, site: Site) -> None:
    """Append one injected gate with its parasitic ZZ.

    The coupling of product qubit and neighbour contributes a rotation by ζ·t/2 per gate
    (``rzz(ζ t / 2)`` is ``exp(-i ζ t ZZ / 4)``).
    """
    from qiskit.circuit.library import IGate, RZZGate

    control, target = site.gate(device)
    local = {physical: index for index, physical in enumerate(site.qubits)}
    angle = zz_angle(device, site)
    getattr(circuit, device.two_qubit_gate)(local[control], local[target])
    if site.partner is not None and device.edge_of[control, target].duration > 0:
        circuit.append(IGate(label=IDLE), [0])
    if angle:
        circuit.append(RZZGate(angle, label=PARASITIC), [0, 1])


def zz_angle(device: DeviceProfile, site: Site) -> float:
    """Angle in rad of the product–neighbour ZZ rotation during one injected gate."""
    assert site.neighbour is not None
    rate = device.edge_of[device.native_gate(site.qubit, site.neighbour)].zz_hz
    duration = device.edge_of[site.gate(device)].duration
    return device.zz_scale * np.pi * rate * duration
