"""The cost of an inference on hardware: circuits, shots, gates and seconds of each layer.

:mod:`qnad_art.resources.circuit_cost` says what is counted. Compilation, upload and queues are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qnad_art.circuits.response import READOUTS, Readout
from qnad_art.crosstalk.criticality import select_critical
from qnad_art.crosstalk.uniform import check_injection, signed_pairs
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import BIASES
from qnad_art.network.conversion import convert
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.network.observation import observe
from qnad_art.placement.placement import Order, device_placement
from qnad_art.placement.plan import CrosstalkPlan, inherent_plan, placed_plan
from qnad_art.resources.circuit_cost import Call, CircuitCost, LayerResources

if TYPE_CHECKING:
    from rich.table import Table

    from qnad_art.layers.quantum_layer import QuantumLayer

REPETITION_DELAY = 250e-6
"""Seconds between shots: ``default_rep_delay`` in the configuration of IBM devices."""
DEFAULT_SHOTS = 1024


@dataclass(frozen=True)
class Resources:
    """The cost of the inference of one image; rich prints it as a table.

    Args:
        device: name of the device.
        side_by_side: largest number of products in one circuit.
        shots: average number of shots per product.
        crosstalk: fraction of the weights under crosstalk.
        repetition_delay: seconds between shots.
        readout_known: whether the readout duration of the device is known; otherwise it counts
            as 0.
        layers: costs of the layers in the order in which they run.
    """

    device: str
    side_by_side: int
    shots: int
    crosstalk: float
    repetition_delay: float
    readout_known: bool
    layers: tuple[LayerResources, ...]

    @property
    def total(self) -> LayerResources:
        """Sum over the layers."""
        names = ("products", "circuits", "runs", "one_qubit_gates", "two_qubit_gates", "seconds")
        return LayerResources(
            "total", **{n: sum(getattr(x, n) for x in self.layers) for n in names}
        )

    def content(self) -> dict[str, Any]:
        """The cost as plain data for JSON, including the total."""
        return {**asdict(self), "total": asdict(self.total)}

    def __rich__(self) -> Table:
        """The cost as a table for rich."""
        from rich.table import Table

        left_out = "" if self.readout_known else "; readout time unknown, not counted"
        table = Table(
            title=f"One image on {self.device}: {self.shots:,} shots, up to {self.side_by_side} "
            f"products side by side, crosstalk on {self.crosstalk:.1%} of the weights",
            caption="gates: each circuit once; time: all shots; repetition delay "
            f"{1e6 * self.repetition_delay:g} µs{left_out}",
        )
        headings = ("products", "circuits", "1q gates", "2q gates", "time")
        table.add_column("layer", overflow="fold")
        for heading in headings:
            table.add_column(heading, justify="right", overflow="fold")
        for row in (*self.layers, self.total):
            if row.name == "total":
                table.add_section()
            gates = (row.one_qubit_gates, row.two_qubit_gates)
            counts = (row.products, row.circuits, *gates)
            table.add_row(row.name, *map(_count, counts), _time(row.seconds))
        return table


def inference_resources(
    network: nn.Module,
    input_shape: Sequence[int],
    *,
    device: DeviceProfile | None = None,
    shots: int | None = None,
    plan: CrosstalkPlan | None = None,
    readout: Readout = "twirled",
    repetition_delay: float = REPETITION_DELAY,
) -> Resources:
    """Compute the cost of the inference of one image.

    Args:
        network: a plain or quantum-executed network. For a quantum-executed network, device, plan,
            shots and their allocation default to those of the network.
        input_shape: shape of one input, without the batch dimension.
        device: the device that runs the circuits; required for a plain network.
        shots: shots per product; the default is the network's own number, or else 1,024.
        plan: crosstalk plan for ``device``; ``None`` means no crosstalk. See :func:`random_plan`.
        readout: ``"twirled"`` or ``"raw"``.
        repetition_delay: seconds between shots.

    Raises:
        InvalidInputError: a value is out of range, or the plan is for another device or network.
    """
    own = network if isinstance(network, QuantumExecutedModule) else None
    device = device or (own.device_profile if own else None)
    if device is None:
        raise InvalidInputError("A plain network has no device; give one, e.g. load_device(name).")
    _check(shots, readout, repetition_delay)
    shots = shots or (own.shots if own else None) or DEFAULT_SHOTS
    module = own or _converted(network, plan)
    if plan is None and own and own.device_profile.hash == device.hash:
        plan = own.plan
    plan = plan or inherent_plan(device, device_placement(device), module.weight_shapes)
    _check_plan(plan, device, module)
    cost = CircuitCost(device, plan.placement(device), readout, repetition_delay)
    layers = module.layers
    rows = [
        cost.layer(name, plan.layers[name], calls, _shots_an_output(layers[name], shots))
        for name, calls in _calls(module, input_shape).items()
    ]
    known = all(device.qubits[q].readout_duration is not None for q in cost.placement.compute)
    width = len(cost.placement.compute)
    return Resources(device.name, width, shots, plan.achieved, repetition_delay, known, tuple(rows))


def random_plan(
    network: nn.Module,
    device: DeviceProfile,
    *,
    fraction: float,
    pairs: int = 1,
    order: Order = "stretched",
    seed: int = 0,
) -> CrosstalkPlan:
    """Plan crosstalk on random weights of a plain network, which costs as much as on chosen ones.

    Args:
        network: the network whose Conv1d, Conv2d and Linear layers get crosstalk.
        device: the device for which to plan.
        fraction: fraction of the weights of every layer, in [0, 1].
        pairs: number of injected gate pairs per weight.
        order: order of the products, see :class:`~qnad_art.placement.placement.Placement`.
        seed: seed of the random choice.
    """
    check_injection(pairs, "alternating")
    shapes = convert(network, device=DeviceProfile.ideal(), max_pairs=0).weight_shapes
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return placed_plan(
        device,
        device_placement(device, order=order),
        select_critical(scores, fraction, scope="layer"),
        pairs=lambda served: signed_pairs(served, pairs, "alternating"),
        strategy="random",
        requested=fraction,
        scores=scores,
        settings={"fraction": fraction, "pairs": pairs, "seed": seed},
    )


def _calls(module: QuantumExecutedModule, shape: Sequence[int]) -> dict[str, list[Call]]:
    """The calls of every layer for one image, with the layers in the order in which they run."""

    def call(layer: QuantumLayer, x: Tensor) -> Call:
        windows, executed, _ = layer.windows(x)
        return Call(executed[0].bool().cpu(), len(windows))

    parameter = next(module.parameters())
    x = torch.zeros((1, *shape), dtype=parameter.dtype, device=parameter.device)
    return observe(module.network, [x], call)


def _shots_an_output(layer: QuantumLayer, shots: int) -> Tensor:
    """Shots per product of each output, float64 (out,)."""
    share = torch.ones(len(layer.weight), dtype=torch.float64)
    if layer.shot_share is not None:
        share = torch.tensor(layer.shot_share, dtype=torch.float64)
    return (share * shots).round().clamp_min(1)


def _check(shots: int | None, readout: str, repetition_delay: float) -> None:
    if shots is not None and (type(shots) is not int or shots < 1):
        raise InvalidInputError(f"shots is {shots!r}; give a whole number from 1.")
    if readout not in READOUTS:
        raise InvalidInputError(f"readout {readout!r} is not one of {', '.join(READOUTS)}.")
    if not 0 <= repetition_delay < float("inf"):
        raise InvalidInputError(
            f"repetition_delay is {repetition_delay}; give seconds, 0 or more (IBM: 250e-6)."
        )


def _converted(network: nn.Module, plan: CrosstalkPlan | None) -> QuantumExecutedModule:
    """Convert a plain network; biases run as products if the plan, if any, has them."""
    for bias in reversed(BIASES):
        module = convert(network, device=DeviceProfile.ideal(), max_pairs=0, bias=bias)
        if plan is not None and plan.shapes == module.weight_shapes:
            break
    return module


def _check_plan(plan: CrosstalkPlan, device: DeviceProfile, module: QuantumExecutedModule) -> None:
    plan.check()
    plan.check_device(device)
    if plan.shapes != module.weight_shapes:
        raise InvalidInputError(
            f"The plan is for another network: its layers are {plan.shapes}, but this network has "
            f"{module.weight_shapes}."
        )


def _count(number: int) -> str:
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.4g} {sign}"
    return f"{number:,}"


def _time(seconds: float) -> str:
    """Format a time in the largest unit in which the number is at least 1."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"
