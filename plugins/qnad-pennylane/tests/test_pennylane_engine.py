"""The engine against Aer, against a third calculation where Aer is inexact, and by name.

The comparison at every site is under the crosstalk model ``paper``; those under the models in time
are in ``test_pennylane_in_time.py``.
"""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import DensityMatrix, SuperOp
from qiskit_aer.noise.device import basic_device_gate_errors
from torch import nn

from qnad_art.circuits.aer_noise import _local_target, _relaxation
from qnad_art.circuits.product import IDLE, Site, product_circuit
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines import build_engine, run_on
from qnad_art.engines.aer import AerEngine
from qnad_art.engines.verify import verify_device
from qnad_art.errors import InvalidInputError
from qnad_art.network.conversion import convert
from qnad_art.placement.placement import device_placement
from qnad_art.testing import check_engine
from qnad_pennylane.engine import PennyLaneEngine


@pytest.fixture(scope="module")
def nairobi():
    return load_device("ibm_nairobi")


@pytest.fixture(scope="module")
def five_ecr(nairobi):
    """Five qubits of ibm_nairobi with ECR gates, all towards the ends of the line."""
    edges = [(1, 0, 9e4), (1, 2, 1.2e5), (3, 2, -7e4), (3, 4, 1.1e5)]
    return DeviceProfile.from_dict(
        {
            "name": "five ecr",
            "two_qubit_gate": "ecr",
            "qubits": nairobi.qubits[:5],
            "edges": [
                {"control": c, "target": t, "error": 0.01, "duration": 5e-7, "zz_hz": zz}
                for c, t, zz in edges
            ],
        }
    )


def every_site(device, most=3, seed=0):
    """Arguments of ``expectations``: each site of a device plain and with both polarities."""
    random = np.random.default_rng(seed)
    sites = device_placement(device).sites
    site = np.repeat(np.arange(len(sites)), 3)
    injectable = np.array([s.neighbour is not None for s in sites])[site]
    pairs = np.tile([-1, 0, 1], len(sites)) * random.integers(1, most + 1, len(site)) * injectable
    theta, phi = random.uniform(-np.pi, np.pi, (2, len(site)))
    return theta, phi, sites, site, pairs


@pytest.mark.parametrize("readout", ["twirled", "raw"])
@pytest.mark.parametrize("name", ["ideal", "nairobi", "five_ecr"])
def test_equals_aer_at_every_site_under_paper(name, readout, request):
    device = load_device(name) if name == "ideal" else request.getfixturevalue(name)
    device = device.model_copy(update={"crosstalk_model": "paper"})
    arguments = every_site(device)
    expected = AerEngine(device, readout=readout).expectations(*arguments)
    found = PennyLaneEngine(device, readout=readout).expectations(*arguments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.ptp(expected) > 0.5


def test_many_products_of_one_circuit_and_of_none(nairobi):
    """Angles in batches of one circuit, more than one run of them; and an empty call."""
    random = np.random.default_rng(1)
    theta, phi = random.uniform(-np.pi, np.pi, (2, 300))
    arguments = (theta, phi, [Site(0), Site(2, 1)], np.zeros(300, int), np.zeros(300, int))
    expected = AerEngine(nairobi).expectations(*arguments)
    found = PennyLaneEngine(nairobi).expectations(*arguments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    nothing = np.zeros(0), np.zeros(0), [Site(0)], np.zeros(0, int), np.zeros(0, int)
    assert PennyLaneEngine(nairobi).expectations(*nothing).shape == (0,)


def test_is_exact_where_aer_drops_small_terms():
    """Aer leaves out error terms of probability below 1e-10, here 1e-8 of the trace.

    The third calculation takes Aer's noise model with all its terms, by ``qiskit.quantum_info``.
    """
    device, site, pairs, angles = (
        load_device("ibm_sherbrooke[crosstalk=paper]"),
        Site(33, 39, 40),
        7,
        (0.3, 1.2),
    )
    third = _by_superoperators(device, site, pairs, *angles)
    arguments = (*(np.array([angle]) for angle in angles), [site], np.array([0]), np.array([pairs]))
    ours = PennyLaneEngine(device, readout="raw").expectations(*arguments)[0]
    aer = AerEngine(device, readout="raw").expectations(*arguments)[0]
    assert abs(ours - third) < 1e-11
    assert 1e-9 < abs(aer - third) < 1e-7


def _by_superoperators(device, site, pairs, theta, phi):
    noise = {
        (name, tuple(qubits)): SuperOp(error)
        for name, qubits, error in basic_device_gate_errors(target=_local_target(device, site))
    }
    idle = SuperOp(_relaxation(device, site.qubit, device.edge_of[site.gate(device)].duration))
    circuit = product_circuit(device, site, pairs, theta=theta, phi=phi, measure=False)
    state = DensityMatrix(QuantumCircuit(circuit.num_qubits))
    for instruction in circuit.data:
        if instruction.name == "barrier":
            continue
        qubits = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        state = state.evolve(instruction.operation, qubits)
        channel = idle if instruction.label == IDLE else noise.get((instruction.name, qubits))
        if channel is not None:
            state = state.evolve(channel, qubits)
    zero, one = state.probabilities([0])
    qubit = device.qubits[site.qubit]
    return zero * (1 - 2 * qubit.p1_given_0) - one * (1 - 2 * qubit.p0_given_1)


@pytest.mark.parametrize("readout", ["twirled", "raw"])
def test_counts_follow_the_probabilities(nairobi, readout):
    """z-scores of many draws of a few products: mean and spread at the level of 1e-4."""
    theta, phi, sites, site, pairs = every_site(nairobi, most=1)
    chosen = np.repeat(np.arange(0, len(site), 9), 60)
    arguments = (theta[chosen], phi[chosen], sites, site[chosen], pairs[chosen])
    exact = PennyLaneEngine(nairobi, readout=readout).expectations(*arguments)
    counted = PennyLaneEngine(nairobi, readout=readout, shots=400, seed=2).expectations(*arguments)
    z = (counted - exact) / np.sqrt((1 - exact**2) / 400)
    assert abs(z.mean()) * np.sqrt(len(z)) < 3.9
    assert abs((z**2).mean() - 1) < 3.9 * np.sqrt(2 / len(z))
    np.testing.assert_allclose(counted * 400, np.rint(counted * 400), atol=1e-9)


def test_draws_are_seeded(nairobi):
    theta, phi, sites, site, pairs = every_site(nairobi, most=1)
    arguments = theta[:6], phi[:6], sites, site[:6], pairs[:6]
    first, again, other = (
        PennyLaneEngine(nairobi, shots=50, seed=seed).expectations(*arguments) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_runs_layers_by_name(nairobi):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = convert(nn.Linear(3, 2).double(), x, device=nairobi)
    with torch.no_grad(), run_on(module, "pennylane"):
        found = module(x)
    torch.testing.assert_close(found, module(x).detach(), rtol=0, atol=1e-9)


def test_conforms(nairobi):
    check_engine("pennylane", device=nairobi, products=40)


def test_verifies_by_name(nairobi):
    result = verify_device(nairobi, engine="pennylane", products=15, max_pairs=2, shots=512)
    assert result.passed
    assert result.engine == "pennylane"
    assert result.largest_difference < 1e-9


def test_settings_are_checked(nairobi):
    with pytest.raises(InvalidInputError, match="shots is 0"):
        build_engine("pennylane", nairobi, shots=0)
