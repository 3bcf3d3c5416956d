"""Reads a Qiskit backend: calibration, native gates and Hamiltonian → content of a profile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from qnad_art.errors import DeviceError

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

TwoQubitGate = Literal["cx", "ecr", "cz"]

TYPICAL_ZZ_HZ: dict[str, float] = {"cx": 55e3, "ecr": 55e3, "cz": 5e3}
"""ZZ rate in Hz assumed where a device publishes no Hamiltonian.

For ``cx`` and ``ecr`` (fixed-frequency transmons with fixed couplers) the value lies between the
medians of the Hamiltonians of ibm_mumbai (52 kHz) and ibm_sherbrooke (59 kHz). For ``cz`` (tunable
couplers suppress the coupling when idle) it is an order of magnitude, a few kHz. Give ``zz_hz`` to
use a measured value."""


def read_backend(backend: BackendV2, *, zz_hz: float | None) -> dict[str, Any]:
    """Content of the profile as plain data; see :meth:`~.profile.DeviceProfile.from_backend`."""
    gate = _two_qubit_gate(backend)
    edges = _edges(backend, gate)
    properties = backend.properties() if hasattr(backend, "properties") else None
    rates = _hamiltonian_zz_hz(backend)
    source = "hamiltonian" if rates else "typical"
    if zz_hz is not None:
        rates, source = {}, "given"
    default = TYPICAL_ZZ_HZ[gate] if zz_hz is None else zz_hz
    # If a published Hamiltonian has no term for an edge, its qubits are not coupled.
    missing = 0.0 if rates else default
    coupled = [
        {**edge, "zz_hz": rates.get(frozenset((edge["control"], edge["target"])), missing)}
        for edge in edges
    ]
    return {
        "name": str(backend.name),
        "calibrated": str(properties.last_update_date) if properties is not None else None,
        "two_qubit_gate": gate,
        "qubits": [_qubit(backend, properties, index) for index in range(backend.num_qubits)],
        "edges": coupled,
        "zz_source": source,
    }


def fake_backends() -> dict[str, type[BackendV2]]:
    """Snapshot classes that qiskit-ibm-runtime ships, by the name of the real device."""
    from qiskit_ibm_runtime import fake_provider

    backends: dict[str, type[BackendV2]] = {}
    for attribute in dir(fake_provider):
        candidate = getattr(fake_provider, attribute)
        name = getattr(candidate, "backend_name", None)
        if attribute.startswith("Fake") and isinstance(name, str) and name.startswith("fake_"):
            backends[name.replace("fake_", "ibm_", 1)] = candidate
    return backends


def _two_qubit_gate(backend: BackendV2) -> TwoQubitGate:
    gates: tuple[TwoQubitGate, ...] = ("cx", "ecr", "cz")
    for gate in gates:
        if gate in backend.target.operation_names:
            return gate
    raise DeviceError(
        f"backend {backend.name} has no cx, ecr or cz gate; "
        f"its operations are {', '.join(sorted(backend.target.operation_names))}."
    )


def _edges(backend: BackendV2, gate: TwoQubitGate) -> list[dict[str, Any]]:
    edges = []
    for qubits, properties in backend.target[gate].items():
        if qubits is None:
            raise DeviceError(f"backend {backend.name} has no coupling map for {gate}.")
        error = _number(properties, "error")
        if error < 1.0:
            duration = _number(properties, "duration")
            control, target = qubits
            edges.append(
                {"control": control, "target": target, "error": error, "duration": duration}
            )
    missing = {"sx", "x", "measure"} - set(backend.target.operation_names)
    if missing:
        raise DeviceError(
            f"backend {backend.name} lacks {', '.join(sorted(missing))}, which the circuits need."
        )
    if not edges:
        raise DeviceError(f"backend {backend.name} has no working {gate} gate.")
    return sorted(edges, key=lambda edge: (edge["control"], edge["target"]))


def _qubit(backend: BackendV2, properties: Any, index: int) -> dict[str, Any]:
    target = backend.target
    known = target.qubit_properties[index] if target.qubit_properties else None
    measure = target["measure"].get((index,))
    readout = _number(measure, "error")
    gates = {
        f"{gate}_{quantity}": _number(target[gate].get((index,)), quantity)
        for gate in ("sx", "x")
        for quantity in ("error", "duration")
    }
    return {
        "t1": _positive(getattr(known, "t1", None)),
        "t2": _positive(getattr(known, "t2", None)),
        "frequency": _positive(getattr(known, "frequency", None)),
        "anharmonicity": _property(properties, index, "anharmonicity"),
        "p1_given_0": _first(_property(properties, index, "prob_meas1_prep0"), readout),
        "p0_given_1": _first(_property(properties, index, "prob_meas0_prep1"), readout),
        "readout_duration": _positive(getattr(measure, "duration", None)),
        **gates,
    }


def _property(properties: Any, index: int, name: str) -> float | None:
    """A calibrated value of ``backend.properties()`` in SI units, ``None`` if it is unknown."""
    if properties is None or name not in properties.qubit_property(index):
        return None
    return float(properties.qubit_property(index, name)[0])


def _hamiltonian_zz_hz(backend: BackendV2) -> dict[frozenset[int], float]:
    """ζ/2π in Hz for each pair of qubits, from the published Duffing-oscillator Hamiltonian.

    ζ = -2 J² (α1 + α2) / ((Δ + α1)(α2 - Δ)), Δ = ω1 - ω2, all published in rad/ns
    (second-order perturbation theory of two coupled transmons).
    """
    if not hasattr(backend, "configuration"):
        return {}
    hamiltonian = getattr(backend.configuration(), "hamiltonian", None) or {}
    values = hamiltonian.get("vars") or {}
    rates = {}
    for key, coupling in values.items():
        if not key.startswith("jq"):
            continue
        first, second = (int(index) for index in key[2:].split("q"))
        alpha1, alpha2 = values[f"delta{first}"], values[f"delta{second}"]
        detuning = values[f"wq{first}"] - values[f"wq{second}"]
        zeta = -2 * coupling**2 * (alpha1 + alpha2) / ((detuning + alpha1) * (alpha2 - detuning))
        rates[frozenset((first, second))] = zeta / (2 * math.pi) * 1e9
    return rates


def _number(properties: Any, quantity: str) -> float:
    """A property of a gate, 0 if the backend does not report it."""
    value = getattr(properties, quantity, None)
    return 0.0 if value is None or math.isnan(value) else float(value)


def _positive(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) and value > 0 else None


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
