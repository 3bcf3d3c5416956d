"""Device profiles: the calibration data of a quantum processor, with sources.

A :class:`DeviceProfile` holds all that the noise model needs (relaxation, gate errors, readout
errors, ZZ coupling) in SI units and nothing else. It can be read, compared, hashed and shipped as
JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qnad_art.errors import DeviceError, UnknownNameError, faults
from qnad_art.files.atomic import read_json, write_json
from qnad_art.plugins.discovery import find_plugin

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

TwoQubitGate = Literal["cx", "ecr", "cz"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

DEFAULT_DEVICE = "ibm_nairobi"
"""The device that the paper uses (section IV)."""
SOURCES = ("relaxation", "gates", "readout", "zz")
"""The sources of noise that :meth:`DeviceProfile.changed` scales."""


def default_crosstalk_model(gate: str) -> str:
    """Name of the most defensible crosstalk model of devices with a native two-qubit gate.

    An echoed cross-resonance gate, of which cx and ecr are made, flips its control halfway; a cz
    gate of tunable couplers does not.
    """
    return "static-zz" if gate == "cz" else "echoed"


class Qubit(BaseModel):
    """One transmon. Times are in seconds, frequencies in Hz; ``None`` means unknown or infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    t1: Positive | None = None
    t2: Positive | None = None
    frequency: Finite | None = None
    anharmonicity: Finite | None = None
    p1_given_0: Probability = 0.0
    """Readout error: probability of reading 1 after preparing |0⟩."""
    p0_given_1: Probability = 0.0
    """Readout error: probability of reading 0 after preparing |1⟩."""
    sx_error: Probability = 0.0
    sx_duration: Seconds = 0.0
    x_error: Probability = 0.0
    x_duration: Seconds = 0.0
    detuning: Finite = 0.0
    """How far the frequency is above that with which the gates are played, in Hz."""
    readout_duration: Seconds | None = None
    """Affects how long circuits take, not what they measure."""


class Edge(BaseModel):
    """One native two-qubit gate, in the direction in which the device lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    control: int
    target: int
    error: Probability = 0.0
    duration: Seconds = 0.0
    zz_hz: Finite = 0.0
    """Always-on ZZ coupling ζ/2π between the two qubits, in Hz."""
    wait: Positive | None = None
    """Length in seconds of a unit of waiting next to the other qubit, as it was programmed. The
    default is what suits the coupling, see :func:`~qnad_art.circuits.words.wait_seconds`."""


class DeviceProfile(BaseModel):
    """A quantum device: qubits, native gates, ZZ rates, and the source of these numbers.

    ``zz_scale`` in [0, 1] is the fraction of the ZZ coupling that remains during a gate. An echoed
    cross-resonance gate cancels part of the coupling; 1 means that nothing is cancelled.
    ``crosstalk_model`` names the coherent errors of gates and waits, see
    :mod:`qnad_art.circuits.crosstalk_models`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    calibrated: str | None = None
    two_qubit_gate: TwoQubitGate
    qubits: tuple[Qubit, ...]
    edges: tuple[Edge, ...]
    zz_source: Literal["hamiltonian", "given", "typical", "none"] = "given"
    zz_scale: Probability = 1.0
    crosstalk_model: str = ""
    """Left out, it is :func:`default_crosstalk_model` of the gate."""

    @model_validator(mode="before")
    @classmethod
    def _model_of_the_gate(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and not content.get("crosstalk_model"):
            gate = content.get("two_qubit_gate")
            return {**content, "crosstalk_model": default_crosstalk_model(str(gate))}
        return content

    @model_validator(mode="after")
    def _edges_join_existing_qubits(self) -> DeviceProfile:
        pairs = [(edge.control, edge.target) for edge in self.edges]
        for control, target in pairs:
            if control == target or not {control, target} <= set(range(len(self.qubits))):
                raise ValueError(
                    f"edge ({control}, {target}) does not join two of {len(self.qubits)} qubits"
                )
        if len(set(pairs)) != len(pairs):
            raise ValueError("an edge is listed twice in the same direction")
        return self

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> DeviceProfile:
        """A changed copy. It is validated again, and derived values are computed again."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return self.from_dict({**fields, **(update or {})}, source=self.name)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that affects the noise (name, dates and readout time do not)."""
        readout_time = {"__all__": {"readout_duration"}}
        content = self.model_dump(
            exclude={"name": True, "calibrated": True, "zz_source": True, "qubits": readout_time}
        )
        if content["crosstalk_model"] == "paper":  # the only one once: hashes of then stay
            del content["crosstalk_model"]
        for part, later in (("qubits", "detuning"), ("edges", "wait")):
            for entry in content[part]:
                if not entry[later]:
                    del entry[later]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """For each qubit, the qubits coupled to it in ascending order."""
        coupled: list[set[int]] = [set() for _ in self.qubits]
        for edge in self.edges:
            coupled[edge.control].add(edge.target)
            coupled[edge.target].add(edge.control)
        return tuple(tuple(sorted(qubits)) for qubits in coupled)

    @cached_property
    def edge_of(self) -> dict[tuple[int, int], Edge]:
        """Native gate by (control, target)."""
        return {(edge.control, edge.target): edge for edge in self.edges}

    def native_gate(self, first: int, second: int) -> tuple[int, int]:
        """(control, target) of the gate between two qubits, with ``first`` as control if native."""
        for pair in ((first, second), (second, first)):
            if pair in self.edge_of:
                return pair
        raise DeviceError(f"{self.name}: no two-qubit gate joins qubits {first} and {second}.")

    def scaled(self, factor: float) -> DeviceProfile:
        """The same device with ``factor`` times the noise; durations and ZZ rates do not change.

        Gate errors, readout errors and the relaxation rates 1/T1 and 1/T2 are multiplied by
        ``factor``. Gate errors are capped at 1. Readout errors are capped at 1/2, where the outcome
        no longer depends on the qubit (above 1/2 it would be inverted). The ZZ coupling is not
        scaled: it is coherent, and the defence uses it as crosstalk.

        Raises:
            DeviceError: the factor is negative or not finite.
        """
        noise = dict.fromkeys(("relaxation", "gates", "readout"), factor)
        return self.changed(noise).model_copy(update={"name": f"{self.name}*{factor:g}"})

    def changed(
        self,
        factors: Mapping[str, float],
        *,
        crosstalk_model: str | None = None,
        symmetric_readout: bool = False,
    ) -> DeviceProfile:
        """The same device with single sources of noise scaled or switched off (0).

        Args:
            factors: by source (:data:`SOURCES`): ``relaxation`` (the rates 1/T1 and 1/T2),
                ``gates`` and ``readout`` (error probabilities, limited as in :meth:`scaled`),
                ``zz`` (the coupling at all times, injected crosstalk included).
            crosstalk_model: another model, see :mod:`qnad_art.circuits.crosstalk_models`.
            symmetric_readout: give both readout errors of a qubit their mean, as Aer's
                ``NoiseModel.from_backend`` does for a ``BackendV2``.

        Raises:
            DeviceError: a factor is negative or not finite.
            UnknownNameError: the source or the model does not exist.
        """
        for source, factor in factors.items():
            if source not in SOURCES:
                raise UnknownNameError("source of noise", source, SOURCES)
            if not 0 <= factor < math.inf:
                raise DeviceError(
                    f"{source} cannot be scaled by {factor} on {self.name}: give a finite number, "
                    "0 or more."
                )
        relaxation, gates, readout, zz = (factors.get(source, 1.0) for source in SOURCES)
        qubits = [_changed_qubit(qubit, relaxation, gates, readout) for qubit in self.qubits]
        edges = [
            edge.model_copy(
                update={"error": _likelier(edge.error, gates, 1.0), "zz_hz": edge.zz_hz * zz}
            )
            for edge in self.edges
        ]
        notes = [f"{source}={factor:g}" for source, factor in factors.items()]
        if symmetric_readout:
            qubits = [_symmetric(qubit) for qubit in qubits]
            notes.append("readout=symmetric")
        update: dict[str, Any] = {"qubits": qubits, "edges": edges}
        if crosstalk_model is not None:
            find_plugin("crosstalk model", crosstalk_model)
            notes.append(f"crosstalk={crosstalk_model}")
            update["crosstalk_model"] = crosstalk_model
        return self.model_copy(update={**update, "name": f"{self.name}[{','.join(notes)}]"})

    def programmed_as(self, waits: Mapping[tuple[int, int], float]) -> DeviceProfile:
        """The same device with units of waiting as long as they were programmed elsewhere.

        Args:
            waits: seconds by (control, target).
        """
        edges = [
            edge.model_copy(update={"wait": waits.get((edge.control, edge.target), edge.wait)})
            for edge in self.edges
        ]
        return self.model_copy(update={"edges": edges})

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON, atomically."""
        write_json(Path(path), self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> DeviceProfile:
        """Read a profile from JSON; raises :class:`~qnad_art.errors.DeviceError` if invalid."""
        return cls.from_dict(read_json(Path(path)), source=str(path))

    @classmethod
    def from_dict(cls, content: Any, *, source: str = "device profile") -> DeviceProfile:
        """Validate plain data; raises :class:`~qnad_art.errors.DeviceError` naming each fault."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DeviceError(
                f"{source} is not a valid device profile: {faults(error)}."
            ) from error

    @classmethod
    def ideal(cls) -> DeviceProfile:
        """The noiseless reference: ibm_nairobi's coupling map without errors, relaxation or ZZ."""
        pairs = [(0, 1), (1, 2), (1, 3), (3, 5), (4, 5), (5, 6)]
        edges = [Edge(control=a, target=b) for i, j in pairs for a, b in ((i, j), (j, i))]
        return cls(
            name="ideal",
            two_qubit_gate="cx",
            qubits=(Qubit(),) * 7,
            edges=tuple(edges),
            zz_source="none",
        )

    @classmethod
    def from_backend(cls, backend: BackendV2, *, zz_hz: float | None = None) -> DeviceProfile:
        """Profile of any Qiskit ``BackendV2``.

        Gate errors, durations, T1 and T2 come from ``backend.target``. Asymmetric readout errors
        and anharmonicity come from ``backend.properties()`` if the backend has them; otherwise
        readout errors are assumed to be symmetric. ZZ rates come from the Hamiltonian in
        ``backend.configuration()``. ``zz_hz`` overrides every ZZ rate. Without ``zz_hz`` and
        without a Hamiltonian, :data:`~qnad_art.device.backends.TYPICAL_ZZ_HZ` is used and
        ``zz_source`` is ``"typical"``. Gates reported as broken (error ≥ 1) are left out.
        """
        from qnad_art.device.backends import read_backend

        return cls.from_dict(read_backend(backend, zz_hz=zz_hz), source=f"backend {backend.name}")


def _changed_qubit(qubit: Qubit, relaxation: float, gates: float, readout: float) -> Qubit:
    def longer(time: float | None) -> float | None:
        return None if time is None or relaxation == 0 else time / relaxation

    return qubit.model_copy(
        update={
            "t1": longer(qubit.t1),
            "t2": longer(qubit.t2),
            "sx_error": _likelier(qubit.sx_error, gates, 1.0),
            "x_error": _likelier(qubit.x_error, gates, 1.0),
            "p1_given_0": _likelier(qubit.p1_given_0, readout, 0.5),
            "p0_given_1": _likelier(qubit.p0_given_1, readout, 0.5),
        }
    )


def _symmetric(qubit: Qubit) -> Qubit:
    mean = (qubit.p1_given_0 + qubit.p0_given_1) / 2
    return qubit.model_copy(update={"p1_given_0": mean, "p0_given_1": mean})


def _likelier(probability: float, factor: float, most: float) -> float:
    """``factor`` times a probability, at most ``most`` unless it was above before."""
    return min(factor * probability, max(probability, most))
