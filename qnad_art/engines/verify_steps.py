"""Does every product of a whole time step come out as compiled? Steps of plans, run on Aer.

A step is one circuit: products on compute qubits, words on their neighbours, waits, and readout,
with the coupling of every pair of qubits at all times that the crosstalk model says. Qubits that
nothing joins in the step are simulated apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from qnad_art.circuits.aer_noise import DeviceErrors, site_noise_model
from qnad_art.circuits.crosstalk_models import CrosstalkModel, crosstalk_model
from qnad_art.circuits.product import Site, product_circuit
from qnad_art.circuits.response import Readout, ResponseTable, response_table
from qnad_art.circuits.timed import end_seconds, product_operations
from qnad_art.circuits.timeline import Operation, append_timeline, shifted
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import DeviceError, InvalidInputError
from qnad_art.placement.placement import Placement, device_placement, with_sites
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan
from qnad_art.placement.time_steps import settled, time_steps

Array = npt.NDArray[np.float64]

SMALL_DEVICE = 7
"""Devices of at most so many qubits are simulated whole."""
MOST_QUBITS = 11
"""A larger cluster would not fit the memory as a density matrix."""
ROWS, FAN_IN, FRACTION = 8, 64, 0.4
"""Of the plan that is drawn where none is given."""


@dataclass(frozen=True)
class StepProduct:
    """One product of a step: its site, its count, and its angles in rad."""

    site: Site
    count: int
    theta: float
    phi: float


@dataclass(frozen=True)
class StepsVerification:
    """Outcome of :func:`verify_steps`.

    Args:
        device, model: of the noise, and of the crosstalk.
        steps, products, injected, met: how many were run; of the products, how many had a word and
            how many met what another's word had left behind.
        largest_cluster: qubits that were simulated together, at most.
        largest_difference: of ⟨Z⟩, compiled and in the step.
        tolerance: that it must not exceed.
    """

    device: str
    model: str
    steps: int
    products: int
    injected: int
    met: int
    largest_cluster: int
    largest_difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the largest difference is within tolerance."""
        return self.largest_difference <= self.tolerance


def verify_steps(
    device: DeviceProfile,
    *,
    plan: CrosstalkPlan | None = None,
    steps: int = 20,
    readout: Readout = "twirled",
    max_pairs: int = 8,
    tolerance: float = 1e-6,
    echo: bool = False,
    seed: int = 0,
) -> StepsVerification:
    """Compare random steps of a plan with the compiled products.

    Args:
        device: the noise, the crosstalk model included.
        plan: whose steps are drawn, from all layers; ``None`` for a layer with random words on two
            in five weights.
        steps: how many are run.
        readout: ``"twirled"`` or ``"raw"``.
        max_pairs: counts up to this.
        tolerance: largest difference of ⟨Z⟩ allowed.
        echo: whether random waits have an echo.
        seed: of everything random: words, steps, angles.
    """
    if steps < 1:
        raise InvalidInputError(f"steps is {steps}; it must be at least 1.")
    random = np.random.default_rng(seed)
    placement = device_placement(device, echo=echo)
    if plan is None:
        made = _draw_steps(placement, _random_layer(placement, max_pairs, random), steps, random)
    else:
        plan.check_device(device)
        made = _steps_of_plan(with_sites(placement, device, plan.sites), plan, steps, random)
    sites = sorted({product.site for step in made for product in step}, key=str)
    max_pairs = max(abs(product.count) for step in made for product in step)
    table = response_table(device, sites, max_pairs=max_pairs, readout=readout)
    errors = DeviceErrors(device)
    found = [run_step(errors, step, readout) for step in made]
    compiled = [_compiled(table, step) for step in made]
    products = [product for step in made for product in step]
    return StepsVerification(
        device=device.name,
        model=device.crosstalk_model,
        steps=len(made),
        products=len(products),
        injected=sum(p.count != 0 and p.site.next_to is None for p in products),
        met=sum(p.count != 0 and p.site.next_to is not None for p in products),
        largest_cluster=max(len(c) for step in made for c in _clusters(device, step)),
        largest_difference=max(
            float(np.abs(a - b).max()) for a, b in zip(found, compiled, strict=True)
        ),
        tolerance=tolerance,
    )


def _random_layer(placement: Placement, max_pairs: int, random: np.random.Generator) -> LayerPlan:
    """Random words on random weights, of every kind that the placement offers."""
    shape = (ROWS, FAN_IN)
    words = np.array([i for served in placement.injections for i in served])
    if not len(words):
        raise DeviceError("No compute qubit has a neighbour, so no word can be run.")
    wanted = random.random(shape) < FRACTION
    counts = random.integers(1, max_pairs + 1, shape) * random.choice([-1, 1], shape)
    site = np.where(wanted, random.choice(words, shape), placement.plain_sites(shape).numpy())
    pairs = np.where(wanted, counts, 0)
    drawn = torch.tensor(site, dtype=torch.int16), torch.tensor(pairs, dtype=torch.int8)
    return LayerPlan(*settled(placement, *drawn))


def _steps_of_plan(
    placement: Placement, plan: CrosstalkPlan, count: int, random: np.random.Generator
) -> list[list[StepProduct]]:
    """Random steps of all layers, each of an output drawn by chance."""
    layers = list(plan.layers.values())
    steps = []
    for index in range(count):
        layer = layers[index % len(layers)]
        row = int(random.integers(len(layer.site)))
        one = LayerPlan(layer.site[row : row + 1], layer.pairs[row : row + 1])
        steps += _draw_steps(placement, one, 1, random)
    return steps


def _draw_steps(
    placement: Placement,
    layer: LayerPlan,
    count: int,
    random: np.random.Generator,
) -> list[list[StepProduct]]:
    """Random steps of a layer with random angles; those with words are drawn first."""
    site, pairs = layer.site, layer.pairs
    step = time_steps(placement, site, pairs).flatten(1).numpy()
    sites, counts = site.flatten(1).numpy(), pairs.flatten(1).numpy()
    every = [(row, t) for row in range(len(step)) for t in range(int(step[row].max()) + 1)]
    busy = {
        place: bool((counts[place[0]][step[place[0]] == place[1]] != 0).any()) for place in every
    }
    shuffled = [every[index] for index in random.permutation(len(every))]
    chosen = sorted(shuffled, key=lambda place: not busy[place])[:count]
    steps = []
    for row, t in chosen:
        (members,) = np.nonzero(step[row] == t)
        angles = random.uniform(-np.pi / 2, np.pi / 2, (len(members), 2))
        steps.append(
            [
                StepProduct(
                    placement.sites[int(sites[row, j])], int(counts[row, j]), float(a), float(b)
                )
                for j, (a, b) in zip(members, angles, strict=True)
            ]
        )
    return steps


def _compiled(table: ResponseTable, step: Sequence[StepProduct]) -> Array:
    return table.expectation(
        np.array([p.theta for p in step]),
        np.array([p.phi for p in step]),
        np.array([table.index[p.site] for p in step]),
        np.array([p.count for p in step]),
    )


def run_step(errors: DeviceErrors, step: Sequence[StepProduct], readout: Readout) -> Array:
    """⟨Z⟩ of all products of a step, from the circuit of the whole step on Aer."""
    plain, flipped = (_measured(errors, step, flip=flip) for flip in (False, True))
    return plain if readout == "raw" else (plain - flipped) / 2


def _measured(errors: DeviceErrors, step: Sequence[StepProduct], *, flip: bool) -> Array:
    device = errors.device
    model = crosstalk_model(device)
    run = _run_timed if model.timed else _run_apart
    means = run(errors, model, step, flip)
    qubits = [device.qubits[p.site.qubit] for p in step]
    offset = np.array([q.p0_given_1 - q.p1_given_0 for q in qubits])
    return offset + np.array([1 - q.p0_given_1 - q.p1_given_0 for q in qubits]) * means


def _run_timed(
    errors: DeviceErrors, model: CrosstalkModel, step: Sequence[StepProduct], flip: bool
) -> Array:
    """⟨Z⟩ before readout, all operations of the step on one time line."""
    device, made = errors.device, []
    for product in step:
        own = product.count if product.site.next_to is None else 0
        made.append(
            product_operations(
                device,
                product.site,
                own,
                theta=product.theta,
                phi=product.phi,
                model=model,
                flip=flip,
            )
        )
    opens = max(window for _, window in made)
    operations = [
        operation for product, window in made for operation in shifted(product, opens - window)
    ]
    until = end_seconds(device, opens, flip=flip)
    means = {}
    for cluster in _clusters(device, step):
        here = [o for o in operations if set(o.qubits) <= set(cluster)]
        wanted = [p.site.qubit for p in step if p.site.qubit in cluster]
        means.update(_simulate(errors, model, here, cluster, wanted, until))
    return np.array([means[p.site.qubit] for p in step])


def _simulate(
    errors: DeviceErrors,
    model: CrosstalkModel,
    operations: Sequence[Operation],
    cluster: Sequence[int],
    wanted: Sequence[int],
    until: float,
) -> dict[int, float]:
    """⟨Z⟩ of the wanted qubits of a cluster."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    circuit = QuantumCircuit(len(cluster))
    append_timeline(circuit, errors, operations, qubits=cluster, until=until, model=model)
    circuit.save_probabilities([cluster.index(qubit) for qubit in wanted])
    noise = errors.model(cluster)
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    found = simulator.run(circuit, shots=1).result().data(0)["probabilities"]
    joint = np.asarray(found).reshape((2,) * len(wanted))  # the last axis is the first qubit
    signs = np.array([1.0, -1.0])
    means = {}
    for position, qubit in enumerate(wanted):
        axis = len(wanted) - 1 - position
        rest = tuple(other for other in range(len(wanted)) if other != axis)
        means[qubit] = float(joint.sum(axis=rest) @ signs)
    return means


def _run_apart(
    errors: DeviceErrors, model: CrosstalkModel, step: Sequence[StepProduct], flip: bool
) -> Array:
    """⟨Z⟩ before readout under a model in which a word disturbs its own product alone."""
    from qiskit.quantum_info import Pauli
    from qiskit_aer import AerSimulator

    device, means = errors.device, []
    for p in step:
        circuit = product_circuit(
            device, p.site, p.count, theta=p.theta, phi=p.phi, flip=flip, measure=False
        )
        circuit.save_expectation_value(Pauli("Z"), [0])
        noise = site_noise_model(device, p.site, readout=False)
        simulator = AerSimulator(method="density_matrix", noise_model=noise)
        means.append(float(simulator.run(circuit, shots=1).result().data(0)["expectation_value"]))
    return np.array(means)


def _clusters(device: DeviceProfile, step: Sequence[StepProduct]) -> list[list[int]]:
    """Physical qubits that are simulated together."""
    if not crosstalk_model(device).timed:
        return [list(p.site.qubits) for p in step]
    if len(device.qubits) <= SMALL_DEVICE:
        return [list(range(len(device.qubits)))]
    active = {
        qubit
        for p in step
        for qubit in (p.site.qubits if p.count and p.site.next_to is None else (p.site.qubit,))
    }
    clusters = []
    while active:
        cluster, edge = set(), {active.pop()}
        while edge:
            cluster |= edge
            near = {n for q in edge for n in device.neighbours[q]}
            edge = near & active
            active -= edge
        clusters.append(sorted(cluster))
    largest = max(map(len, clusters))
    if largest > MOST_QUBITS:
        raise DeviceError(
            f"{largest} qubits of {device.name} are joined in one step; at most {MOST_QUBITS} can "
            "be simulated."
        )
    return clusters
