"""How a network is executed: one frozen object, which is checked once and used everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from qnad_art.circuits.response import Readout, check_table, usual_pairs
from qnad_art.device.catalogue import DeviceLike
from qnad_art.device.profile import DEFAULT_DEVICE, DeviceProfile
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.layers.kernels import Bias, Gain, check_execution
from qnad_art.layers.mappings import DEFAULT_MAPPING
from qnad_art.network.calibration import check_percentile
from qnad_art.placement.placement import Order, Placement, check_order, device_placement
from qnad_art.plugins.discovery import find_plugin

Allocation = Literal["margin", "equal"]
ALLOCATIONS: tuple[Allocation, ...] = ("margin", "equal")


@dataclass(frozen=True)
class ExecutionSettings:
    """How a network is executed as circuits.

    Args:
        device: name, JSON file, Qiskit backend or profile, see
            :func:`~qnad_art.device.catalogue.load_device`, which loads it when it is needed.
        shots: shots per product; ``None`` for the exact expectation.
        readout: ``"twirled"`` or ``"raw"``, see :func:`~qnad_art.circuits.response.response_table`.
        gain: ``"calibrated"`` or ``"raw"``, see :class:`~qnad_art.layers.kernels.Execution`.
        headroom: s_w over the largest |weight| of an output, see
            :class:`~qnad_art.layers.kernels.Execution`.
        bias: ``"classical"`` or ``"quantum"``, likewise; ``None`` leaves the choice to the
            crosstalk strategy, and means ``"classical"`` without one.
        mapping: ``"arcsine"``, ``"linear"``, or the name of a plugin's: the angle that stands for
            an activation, see :mod:`qnad_art.layers.mappings`.
        percentile: percentile of the activations that becomes the scale, see
            :meth:`~qnad_art.network.module.QuantumExecutedModule.calibrate`.
        include, exclude: patterns over module names (``features.*``); a layer is converted if it
            matches one of ``include`` and none of ``exclude``.
        order, compute: see :func:`~qnad_art.placement.placement.device_placement`.
        max_pairs: largest pair count that a plan may use; ``None`` means what suits the crosstalk
            model, see :func:`~qnad_art.circuits.response.usual_pairs`.
        echo: whether waits of a neighbour have an echo, see
            :func:`~qnad_art.placement.placement.device_placement`.
        allocation: allocation of the shots. ``"margin"`` gives more shots to the outputs whose
            noise affects the decision most, at the same total
            (:func:`~.shot_allocation.allocate_shots`), and ``"equal"`` the same to every product.
            ``None`` means ``"margin"`` under the plan of :class:`~qnad_art.QNAD`, else ``"equal"``.
        seed: seed of the shot noise, and of a crosstalk strategy that takes one; ``None`` takes a
            fresh one for the noise.

    Raises:
        InvalidInputError: a value is out of range.
        UnknownNameError: the mapping is unknown.
    """

    device: DeviceLike = DEFAULT_DEVICE
    shots: int | None = None
    readout: Readout = "twirled"
    gain: Gain = "calibrated"
    headroom: float = 1.0
    bias: Bias | None = None
    mapping: str = DEFAULT_MAPPING
    percentile: float | None = None
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    order: Order = "stretched"
    compute: Sequence[int] | None = None
    max_pairs: int | None = None
    echo: bool = False
    allocation: Allocation | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_execution(self.shots, self.gain, self.headroom, self.bias or "classical")
        check_table(self.readout, self.max_pairs or 0)
        check_order(self.order)
        find_plugin("mapping", self.mapping)
        if self.percentile is not None:
            check_percentile(self.percentile)
        if self.allocation not in (None, *ALLOCATIONS):
            raise InvalidInputError(
                f"allocation {self.allocation!r} is not one of {', '.join(ALLOCATIONS)}."
            )
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            if isinstance(patterns, str):
                raise InvalidInputError(f"{name} is {patterns!r}; give a list: [{patterns!r}].")
            object.__setattr__(self, name, tuple(patterns))
        if self.compute is not None:
            object.__setattr__(self, "compute", tuple(int(qubit) for qubit in self.compute))

    @classmethod
    def of(cls, settings: ExecutionSettings | None, **changes: Any) -> ExecutionSettings:
        """``settings``, or the defaults, with ``changes``.

        Raises:
            UnknownNameError: a setting does not exist.
        """
        for name in changes:
            if name not in SETTINGS:
                raise UnknownNameError("setting of the execution:", name, SETTINGS)
        return replace(settings or cls(), **changes)

    def preferring(self, preferred: Mapping[str, Any]) -> ExecutionSettings:
        """These settings with the ``preferred`` values in place of ``None``."""
        left = {name: value for name, value in preferred.items() if getattr(self, name) is None}
        return replace(self, **left)

    def pairs_on(self, device: DeviceProfile) -> int:
        """:attr:`max_pairs`, or what suits ``device``."""
        return usual_pairs(device) if self.max_pairs is None else self.max_pairs

    def placement(self, device: DeviceProfile) -> Placement:
        """Where products run on ``device``, which :attr:`device` names."""
        return device_placement(device, compute=self.compute, order=self.order, echo=self.echo)

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values, with the device's name."""
        values = {name: getattr(self, name) for name in SETTINGS}
        device = self.device
        name = device.name if isinstance(device, DeviceProfile) else getattr(device, "name", device)
        return {**values, "device": str(name)}

    def __str__(self) -> str:
        """All settings on one line."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.recorded().items())


SETTINGS = tuple(field.name for field in fields(ExecutionSettings))
"""Names of the settings."""


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
