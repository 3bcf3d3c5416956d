"""What an inference would cost on hardware: circuits, shots, gates and seconds by layer.

A *circuit* is one time step of an output's sum, in which its products run side by side on the
compute qubits, scheduled by :mod:`qnad_art.schedule` (zero padding is not executed). One shot of
it takes its longest product, the longest readout and the repetition delay, in which the qubits
relax to |0⟩. Compilation, upload and queues are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qnad_art.circuits import Site
from qnad_art.conversion import convert
from qnad_art.criticality import select_critical
from qnad_art.crosstalk.plan import CrosstalkPlan, LayerPlan, inherent_plan, placed_plan
from qnad_art.crosstalk.uniform import check_injection, signed_pairs
from qnad_art.device import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.kernels import BIASES
from qnad_art.module import QuantumExecutedModule
from qnad_art.observation import observe
from qnad_art.placement import Order, Placement, device_placement
from qnad_art.response import READOUTS, Readout
from qnad_art.schedule import time_steps

if TYPE_CHECKING:
    from rich.table import Table

    from qnad_art.quantum_layer import QuantumLayer

REPETITION_DELAY = 250e-6
"""Seconds between shots: ``default_rep_delay`` in the configuration of IBM's devices."""
DEFAULT_SHOTS = 1024
SX_A_PRODUCT = 3

_ROWS = 256
"""Outputs counted at a time, to bound the memory."""


@dataclass(frozen=True)
class LayerResources:
    """One layer, an image.

    Args:
        name: of the layer.
        products: of an activation and a weight.
        circuits: time steps, each of which runs up to ``Resources.side_by_side`` products.
        runs: circuits times shots.
        one_qubit_gates: sx and x in the circuits (rz is virtual). The x of twirled readout is in
            every other shot and counts half (rounded).
        two_qubit_gates: in the circuits, all of them injected.
        seconds: of all runs, repetition delays included.
    """

    name: str
    products: int
    circuits: int
    runs: int
    one_qubit_gates: int
    two_qubit_gates: int
    seconds: float


@dataclass(frozen=True)
class Resources:
    """What the inference of one image costs; prints as a table with rich.

    Args:
        device: that runs it.
        side_by_side: products that it runs in one circuit at most.
        shots: of every product, on average.
        crosstalk: fraction of the weights under crosstalk.
        repetition_delay: seconds between shots.
        readout_known: whether the device says how long a readout takes; otherwise it counts 0.
        layers: in the order in which they run.
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
        """Plain data for JSON, the total included."""
        return {**asdict(self), "total": asdict(self.total)}

    def __rich__(self) -> Table:
        """Table for rich."""
        from rich.table import Table

        left_out = "" if self.readout_known else "; readout time unknown, left out"
        table = Table(
            title=f"One image on {self.device}: {self.shots:,} shots, up to {self.side_by_side} "
            f"products side by side, crosstalk on {self.crosstalk:.1%} of the weights",
            caption="gates: each circuit once; time: all its shots; repetition delay "
            f"{1e6 * self.repetition_delay:g} µs{left_out}",
        )
        headings = ("products", "circuits", "1q gates", "2q gates", "time")
        table.add_column("layer", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
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
    """Cost of the inference of one image.

    Args:
        network: plain, or quantum-executed (then device, plan, shots and shares of the shots are
            its own unless given here).
        input_shape: of one input, without the batch.
        device: that runs it; of a plain network it must be given.
        shots: a product; by default the network's own, else 1,024.
        plan: crosstalk, made for ``device``; ``None`` for none. See :func:`random_plan`.
        readout: ``"twirled"`` or ``"raw"``.
        repetition_delay: seconds between shots.

    Raises:
        InvalidInputError: a value out of range, or a plan for another device or network.
    """
    own = network if isinstance(network, QuantumExecutedModule) else None
    device = device or (own.device_profile if own else None)
    if device is None:
        raise InvalidInputError("A plain network has no device: give one, e.g. load_device(name).")
    _check(shots, readout, repetition_delay)
    shots = shots or (own.shots if own else None) or DEFAULT_SHOTS
    module = own or _converted(network, plan)
    if plan is None and own and own.device_profile.hash == device.hash:
        plan = own.plan
    plan = plan or inherent_plan(device, device_placement(device), module.weight_shapes)
    _check_plan(plan, device, module)
    cost = _Cost(device, _placement(plan), readout, repetition_delay)
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
    """Crosstalk on randomly chosen weights of a plain network: it costs what chosen ones cost.

    Args:
        network: its Conv1d, Conv2d and Linear layers get crosstalk.
        device: that the plan is for.
        fraction: of the weights of every layer, in [0, 1].
        pairs: of injected gates on each.
        order: of the products in time, see :class:`~qnad_art.placement.Placement`.
        seed: of the choice.
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


@dataclass(frozen=True)
class _Call:
    """Which products a call of a layer executes, (groups, J, positions), and how many times."""

    executed: Tensor
    times: int


class _Cost:
    """Costs of layers on one device."""

    def __init__(
        self, device: DeviceProfile, placement: Placement, readout: Readout, delay: float
    ) -> None:
        self.placement = placement
        self.flips = 0.5 if readout == "twirled" else 0.0
        self.delay = delay
        sites = placement.sites
        qubits = [device.qubits[site.qubit] for site in sites]
        self.bare = _seconds(SX_A_PRODUCT * qubit.sx_duration for qubit in qubits)
        self.flip = _seconds(qubit.x_duration for qubit in qubits)
        self.readout = _seconds(qubit.readout_duration or 0.0 for qubit in qubits)
        self.a_pair = _seconds(2 * _gate_seconds(device, site) for site in sites)
        self.polarity = _seconds(2 * _neighbour_x_seconds(device, site) for site in sites)

    def layer(
        self, name: str, plan: LayerPlan, calls: Sequence[_Call], shots: Tensor
    ) -> LayerResources:
        """One layer; ``shots`` (out,) of each output's products."""
        total = torch.zeros(6, dtype=torch.float64)
        site, pairs = plan.site.flatten(1).long(), plan.pairs.flatten(1).long()
        for call in calls:
            for group, rows in _blocks(len(site), len(call.executed)):
                alike = not pairs[rows].any() and bool((site[rows] == site[rows][:1]).all())
                for mask, positions in _distinct(call.executed[group]):
                    times = call.times * positions
                    if alike:  # one output stands for all
                        first, times = slice(rows.start, rows.start + 1), times * len(site[rows])
                        cost = self._position(
                            site[first, mask], pairs[first, mask], shots[rows].mean()[None]
                        )
                    else:
                        cost = self._position(site[rows, mask], pairs[rows, mask], shots[rows])
                    total += times * cost
        products, circuits, runs, one_qubit, two_qubit, _ = map(round, total.tolist())
        return LayerResources(name, products, circuits, runs, one_qubit, two_qubit, float(total[5]))

    def _position(self, site: Tensor, pairs: Tensor, shots: Tensor) -> Tensor:
        """Sums of outputs at one position, of whose products (outputs, J) all are executed.

        Returns:
            Products, circuits, runs, gates of one and of two qubits, seconds.
        """
        if not pairs.numel():
            return torch.zeros(6, dtype=torch.float64)
        step = time_steps(self.placement, site, pairs)
        circuit = self.bare[site] + self.a_pair[site] * pairs.abs()
        circuit += self.polarity[site] * (pairs < 0)
        ran = _longest(step, torch.ones_like(circuit))
        shot = (1 - self.flips) * _longest(step, circuit)
        shot += self.flips * _longest(step, circuit + self.flip[site])
        shot += _longest(step, self.readout[site]) + self.delay * ran
        one_qubit = (SX_A_PRODUCT + self.flips) * pairs.numel() + 2 * (pairs < 0).sum()
        two_qubit = 2 * pairs.abs().sum()
        figures = (ran.sum(), ran.sum(1) @ shots, one_qubit, two_qubit, shot.sum(1) @ shots)
        count = torch.tensor(pairs.numel())
        return torch.stack([figure.double() for figure in (count, *figures)])


def _longest(step: Tensor, seconds: Tensor) -> Tensor:
    """Largest value in each step, 0 in those that run nothing: (outputs, steps)."""
    result = torch.zeros(len(step), int(step.max()) + 1, dtype=torch.float64)
    return result.scatter_reduce_(1, step, seconds, "amax")


def _blocks(outputs: int, groups: int) -> Iterator[tuple[int, slice]]:
    """Outputs of each group, some at a time."""
    size = outputs // groups
    for group in range(groups):
        for start in range(group * size, (group + 1) * size, _ROWS):
            yield group, slice(start, min(start + _ROWS, (group + 1) * size))


def _distinct(executed: Tensor) -> list[tuple[Tensor, int]]:
    """Different columns of (J, positions), and how many there are of each: padding has few."""
    masks, counts = torch.unique(executed.T, dim=0, return_counts=True)
    return list(zip(masks, counts.tolist(), strict=True))


def _calls(module: QuantumExecutedModule, shape: Sequence[int]) -> dict[str, list[_Call]]:
    """The calls of every layer for one image, layers in the order in which they run."""

    def call(layer: QuantumLayer, x: Tensor) -> _Call:
        windows, executed, _ = layer.windows(x)
        return _Call(executed[0].bool().cpu(), len(windows))

    parameter = next(module.parameters())
    x = torch.zeros((1, *shape), dtype=parameter.dtype, device=parameter.device)
    return observe(module.network, [x], call)


def _shots_an_output(layer: QuantumLayer, shots: int) -> Tensor:
    """Shots of each output's products, float64 (out,)."""
    share = torch.ones(len(layer.weight), dtype=torch.float64)
    if layer.shot_share is not None:
        share = torch.tensor(layer.shot_share, dtype=torch.float64)
    return (share * shots).round().clamp_min(1)


def _placement(plan: CrosstalkPlan) -> Placement:
    """The placement that the plan's sites are of."""
    compute = tuple(site.qubit for site in plan.sites if site.neighbour is None)
    return Placement(compute, plan.sites)


def _gate_seconds(device: DeviceProfile, site: Site) -> float:
    return 0.0 if site.neighbour is None else device.edge_of[site.gate(device)].duration


def _neighbour_x_seconds(device: DeviceProfile, site: Site) -> float:
    return 0.0 if site.neighbour is None else device.qubits[site.neighbour].x_duration


def _seconds(values: Any) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


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
    """Biases run as the plan, if there is one, has them."""
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
            f"The plan is for another network: its layers are {plan.shapes}, those of this network "
            f"{module.weight_shapes}."
        )


def _count(number: int) -> str:
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.4g} {sign}"
    return f"{number:,}"


def _time(seconds: float) -> str:
    """In the largest unit that leaves a number of 1 or more."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"
