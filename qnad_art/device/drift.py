"""How a device drifts between calibrations: relaxation, gates, readout, ZZ coupling, frequencies.

Every part is an Ornstein–Uhlenbeck process that is zero when the device is calibrated: after the
time t it is normal with the standard deviation σ·sqrt(1 - exp(-2t/τ)). Relaxation times, gate
errors and readout errors drift in their logarithm, the coupling relative to its value, and the
frequency of a qubit in Hz. Qubits and pairs drift independently.

The standard deviations follow what has been published of fixed-frequency transmons: T1 fluctuates
by tens of percent within hours (Klimov et al., PRL 121, 090502, 2018,
doi 10.1103/PhysRevLett.121.090502), frequencies by kHz (Burnett et al., npj Quantum Inf. 5, 54,
2019, doi 10.1038/s41534-019-0168-5), and over months T1 about as much as within a day (Carroll et
al., npj Quantum Inf. 8, 132, 2022, doi 10.1038/s41534-022-00643-y). Those of gate errors, readout
and coupling are assumptions of the same order; a measured history can replace them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.errors import InvalidInputError, UnknownNameError

SPANS = {"hours": 6.0, "day": 24.0, "month": 720.0}
"""Hours since the calibration, by name."""


@dataclass(frozen=True)
class Fluctuation:
    """One part of the drift.

    Args:
        deviation: standard deviation σ after a long time.
        hours: correlation time τ.
    """

    deviation: float
    hours: float

    def after(self, value: np.ndarray, hours: float, random: np.random.Generator) -> np.ndarray:
        """The process ``hours`` after it was at ``value``."""
        left = math.exp(-hours / self.hours)
        spread = self.deviation * math.sqrt(1 - left**2)
        return left * value + spread * random.standard_normal(value.shape)


@dataclass(frozen=True)
class DriftModel:
    """A drift model; a subclass may override :meth:`path`, for instance with a measured history.

    Args:
        name: under which it is registered.
        relaxation: fluctuation of ln T1 and ln T2; 20 % after a day.
        gates, readout: fluctuation of the logarithm of the errors; 30 % after a day.
        zz: fluctuation of ζ relative to its value; 2 % after a day.
        detuning: fluctuation of each qubit's frequency in Hz; 3 kHz after a day.
    """

    name: str = "typical"
    relaxation: Fluctuation = Fluctuation(0.20, 10.0)
    gates: Fluctuation = Fluctuation(0.30, 12.0)
    readout: Fluctuation = Fluctuation(0.30, 12.0)
    zz: Fluctuation = Fluctuation(0.043, 200.0)
    detuning: Fluctuation = Fluctuation(6.5e3, 200.0)

    def scaled(self, factors: Mapping[str, float]) -> DriftModel:
        """The same model with parts scaled or switched off (0).

        Raises:
            UnknownNameError: a part is unknown.
            InvalidInputError: a factor is negative or not finite.
        """
        changed: dict[str, Any] = {}
        for part, factor in factors.items():
            if part not in PARTS:
                raise UnknownNameError("part of the drift", part, PARTS)
            if not 0 <= factor < math.inf:
                raise InvalidInputError(
                    f"{part} cannot be scaled by {factor}; give a finite number, 0 or more."
                )
            before: Fluctuation = getattr(self, part)
            changed[part] = replace(before, deviation=factor * before.deviation)
        return replace(self, **changed)

    def drifted(self, device: DeviceProfile, span: str | float, *, seed: int) -> DeviceProfile:
        """``device`` some time after its calibration.

        Args:
            device: as it was calibrated.
            span: one of :data:`SPANS`, or hours.
            seed: which of all devices that may have become of it.
        """
        return self.path(device, [hours_of(span)], seed=seed)[0]

    def path(
        self, device: DeviceProfile, hours: Sequence[float], *, seed: int
    ) -> list[DeviceProfile]:
        """One device at several times: it drifts on from each to the next.

        Args:
            device: as it was calibrated.
            hours: since then, in ascending order.
            seed: which of all devices that may have become of it.
        """
        if list(hours) != sorted(hours) or min(hours, default=0.0) < 0:
            raise InvalidInputError(f"hours are {list(hours)}; give times from 0 on, in order.")
        random = np.random.default_rng(seed)
        pairs = sorted({tuple(sorted((e.control, e.target))) for e in device.edges})
        sizes = {
            "relaxation": (2, len(device.qubits)),
            "gates": (len(device.qubits) + len(pairs),),
            "readout": (len(device.qubits),),
            "zz": (len(pairs),),
            "detuning": (len(device.qubits),),
        }
        state, before, found = {part: np.zeros(size) for part, size in sizes.items()}, 0.0, []
        for time in hours:
            for part in PARTS:
                process: Fluctuation = getattr(self, part)
                state[part] = process.after(state[part], time - before, random)
            before = time
            qubits = [_qubit(q, state, index) for index, q in enumerate(device.qubits)]
            number = {pair: index for index, pair in enumerate(pairs)}
            edges = [
                _edge(e, state, number[tuple(sorted((e.control, e.target)))], len(qubits))
                for e in device.edges
            ]
            name = f"{device.name}, {time:g} h later (seed {seed})"
            found.append(device.model_copy(update={"name": name, "qubits": qubits, "edges": edges}))
        return found


PARTS = tuple(field.name for field in fields(DriftModel) if field.name != "name")
"""What drifts, each scalable alone."""
TYPICAL = DriftModel()


def hours_of(span: str | float) -> float:
    """Hours of a span: one of :data:`SPANS`, or a number."""
    if isinstance(span, str):
        if span in SPANS:
            return SPANS[span]
        try:
            span = float(span)
        except ValueError:
            raise UnknownNameError("time span", span, tuple(SPANS)) from None
    if not 0 <= span < math.inf:
        raise InvalidInputError(f"{span} hours; give a finite number, 0 or more.")
    return float(span)


def _qubit(qubit: Qubit, state: Mapping[str, np.ndarray], index: int) -> Qubit:
    def times(value: float | None, change: float, most: float = math.inf) -> float | None:
        return None if value is None else min(value * math.exp(change), max(value, most))

    t1, t2 = state["relaxation"][:, index]
    gates, readout = state["gates"][index], state["readout"][index]
    return qubit.model_copy(
        update={
            "t1": times(qubit.t1, t1),
            "t2": times(qubit.t2, t2),
            "sx_error": times(qubit.sx_error, gates, 0.5),
            "x_error": times(qubit.x_error, gates, 0.5),
            "p1_given_0": times(qubit.p1_given_0, readout, 0.5),
            "p0_given_1": times(qubit.p0_given_1, readout, 0.5),
            "detuning": qubit.detuning + float(state["detuning"][index]),
        }
    )


def _edge(edge: Edge, state: Mapping[str, np.ndarray], index: int, qubits: int) -> Edge:
    error = min(edge.error * math.exp(state["gates"][qubits + index]), max(edge.error, 0.75))
    zz = edge.zz_hz * (1 + float(state["zz"][index]))
    return edge.model_copy(update={"error": error, "zz_hz": zz})
