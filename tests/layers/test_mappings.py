"""Mappings: compiled layers against circuits that are built here, gradients, and who takes them."""

import math
from dataclasses import replace

import fake_plugins
import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import RZZGate
from qiskit_aer import AerSimulator
from torch import nn

from qnad_art.circuits.aer_noise import site_noise_model
from qnad_art.circuits.product import PARASITIC, Site
from qnad_art.engines.aer import AerEngine
from qnad_art.errors import PluginError, UnknownNameError
from qnad_art.layers.mappings import LINEAR
from qnad_art.network.conversion import convert
from qnad_art.placement.plan import LayerPlan
from qnad_art.plugins.discovery import plugin_names
from qnad_art.testing import check_mapping, checks_for

MAPPINGS = plugin_names("mapping")
ANGLES = {"arcsine": math.asin, "linear": lambda x: math.pi * x / 2}
DECODING = {"arcsine": 1.0, "linear": 8 / math.pi**2}
SITE = Site(0, 1)


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("check", checks_for("mapping"), ids=lambda check: check[0])
def test_built_in_conforms(name, check):
    check[1](name)


def one_weight(device, name, weight, *, pairs=0, **settings):
    """A layer of one weight on :data:`SITE`, with s_x = s_w = 1; double precision."""
    layer = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[weight, 1.0]]))  # the other weight meets x̂ = 0
    data = torch.ones(1, 2).double()
    module = convert(nn.Sequential(layer), data, device=device, mapping=name, **settings)
    sites = module.placement.sites
    site = torch.tensor([[sites.index(SITE), sites.index(Site(0))]], dtype=torch.int16)
    plan = LayerPlan(site, torch.tensor([[pairs, 0]], dtype=torch.int8))
    module.plan = replace(module.plan, layers={"0": plan})
    return module


def mean_z(device, theta, phi, pairs, *, flip=False):
    """⟨Z⟩ with readout errors, of a circuit made gate by gate."""
    circuit = QuantumCircuit(2)
    circuit.sx(0)
    circuit.rz(theta + math.pi, 0)
    circuit.sx(0)
    circuit.rz(phi + math.pi, 0)
    edge = device.edge_of[device.native_gate(0, 1)]
    control, target = (0, 1) if edge.control == 0 else (1, 0)
    for _ in range(2 * pairs):
        circuit.barrier()
        circuit.cx(control, target)
        circuit.append(RZZGate(math.pi * edge.zz_hz * edge.duration, label=PARASITIC), [0, 1])
    circuit.barrier()
    circuit.sx(0)
    if flip:
        circuit.x(0)
    circuit.save_probabilities([0])
    noise = site_noise_model(device, SITE, readout=False)
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    zero, one = simulator.run(circuit, shots=1).result().data(0)["probabilities"]
    qubit = device.qubits[0]
    return zero * (1 - 2 * qubit.p1_given_0) - one * (1 - 2 * qubit.p0_given_1)


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("readout", ["twirled", "raw"])
@pytest.mark.parametrize("pairs", [0, 2])
def test_a_compiled_product_is_that_of_the_circuit(name, readout, pairs, paper_nairobi):
    nairobi = paper_nairobi  # a pair on the product's own edge turns nothing in time
    random = np.random.default_rng(pairs)
    for x, w in random.uniform(-1, 1, (4, 2)):
        module = one_weight(nairobi, name, w, pairs=pairs, readout=readout, gain="raw")
        # The second activation is 0; the difference of two outputs leaves out its product.
        compiled = module(torch.tensor([[x, 0.0], [-x, 0.0]]).double()).detach()
        found = []
        for sign in (1, -1):
            angles = ANGLES[name](sign * x), math.asin(w)
            plain, flipped = (mean_z(nairobi, *angles, pairs, flip=f) for f in (False, True))
            found.append(plain if readout == "raw" else (plain - flipped) / 2)
        expected = DECODING[name] * (found[0] - found[1])
        assert float(compiled[0] - compiled[1]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", MAPPINGS)
def test_without_noise_a_product_is_the_sine_times_the_weight(name):
    layer = nn.Linear(1, 1, bias=False).double()
    module = convert(nn.Sequential(layer), torch.ones(1, 1).double(), device="ideal", mapping=name)
    x = torch.linspace(-1, 1, 9).double()[:, None]
    sine = torch.tensor([[math.sin(ANGLES[name](float(value)))] for value in x])
    expected = DECODING[name] * sine * layer.weight.detach()
    assert torch.allclose(module(x).detach(), expected, atol=1e-12)


def test_the_decoding_of_linear_is_the_least_squares_one():
    x = np.linspace(-1, 1, 20001)
    sine = np.sin(LINEAR.theta(x))
    assert LINEAR.decoding == pytest.approx(float(x @ sine / (sine @ sine)), rel=1e-3)


CASES = {
    "linear": (nn.Linear(5, 3), (5,)),
    "convolution": (nn.Conv2d(2, 3, 3, padding=1, stride=2), (2, 5, 5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("settings", [{}, {"bias": "quantum", "gain": "raw", "readout": "raw"}])
def test_a_layer_equals_its_circuits_where_cosine_counts(
    case, name, settings, ecr_line, random_tensor, random_crosstalk
):
    layer, shape = CASES[case]
    x = random_tensor(3, *shape)
    module = convert(
        nn.Sequential(layer).double(), x, device=ecr_line, mapping=name, max_pairs=2, **settings
    )
    random_crosstalk(module, most=2)
    (executed,) = module.layers.values()
    assert executed.kernels().cos is not None
    engine = AerEngine(ecr_line, readout=module.execution.table.readout)
    with torch.no_grad():
        assert torch.allclose(executed(x), engine(executed, x), atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_values(case, ecr_line, random_tensor, random_crosstalk):
    layer, shape = CASES[case]
    x = random_tensor(2, *shape)
    module = convert(nn.Sequential(layer).double(), 1.2 * x, device=ecr_line, mapping="linear")
    random_crosstalk(module)
    assert torch.autograd.gradcheck(module, (x.requires_grad_(),))
    with module.plain_execution():
        assert torch.autograd.gradcheck(module, (x,))


def test_the_variance_is_that_of_the_circuits_outcomes(ecr_line, random_tensor, random_crosstalk):
    """Shot noise of a sum: scale² Σ (1 - ⟨Z⟩²) / S, ⟨Z⟩ from Aer."""
    x = random_tensor(4, 6)
    network = nn.Sequential(nn.Linear(6, 3)).double()
    module = convert(network, x, device=ecr_line, mapping="linear", shots=100, percentile=100)
    random_crosstalk(module)
    (layer,) = module.layers.values()
    engine = AerEngine(ecr_line)
    made = engine.products(layer, x)
    outcome = np.zeros(made.where.shape)
    outcome[made.where] = engine.expectations(
        made.theta, made.phi, made.sites, made.site, made.pairs
    )
    summed = torch.from_numpy((1 - outcome**2).sum((2, 3))).T
    expected = summed * made.scale.detach() ** 2 / 100
    with module.plain_execution():
        _, variance = layer.moments(x)
        found = variance * layer.noise_scale() ** 2
    assert torch.allclose(found.detach(), expected, rtol=1e-9)
    _, variance = layer.moments(x)  # with the cheaper forms
    found = variance * layer.noise_scale() ** 2
    assert torch.allclose(found.detach(), expected, rtol=2e-3)


@pytest.mark.parametrize("name", MAPPINGS)
def test_gradients_pass_saturated_activations_where_they_are_asked_to(name):
    layer = nn.Linear(1, 1, bias=False).double()
    module = convert(nn.Sequential(layer), torch.ones(1, 1).double(), device="ideal", mapping=name)
    x = torch.tensor([[1.5], [-3.0], [0.5]]).double().requires_grad_()
    outputs = module(x)
    (true,) = torch.autograd.grad(outputs.sum(), x)
    with module.unsaturated_gradients():
        assert torch.equal(module(x), outputs)
        (passed,) = torch.autograd.grad(module(x).sum(), x)
    assert true[:2].abs().max() == 0
    expected = DECODING[name] * layer.weight.detach()[0]
    assert torch.allclose(passed[:2], expected.expand(2, 1))
    assert torch.equal(passed[2], true[2])


def test_an_unknown_mapping_is_an_error_that_names_the_known():
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        convert(nn.Linear(2, 2), torch.ones(1, 2), mapping="linaer")


CUBE = """
from dataclasses import dataclass
import numpy as np
from qnad_art.layers.mappings import Mapping

@dataclass(frozen=True)
class Cube(Mapping):
    "An angle that goes with the cube, whose compiled terms are forgotten."
    def theta(self, x):
        return np.pi / 2 * (x**3 + x) / 2

CUBE = Cube("cube")
"""


def test_terms_that_are_not_those_of_the_angle_are_told(installed):
    installed(fake_plugins.Fake("qnad-cube", "mapping", "cube = qnad_cube:CUBE", CUBE))
    with pytest.raises(AssertionError, match="terms_are_those_of_the_angles"):
        check_mapping("cube")


def test_a_mapping_has_the_name_under_which_it_is_registered(installed):
    installed(fake_plugins.Fake("qnad-cube", "mapping", "square = qnad_cube:CUBE", CUBE))
    with pytest.raises(PluginError, match="calls itself 'cube'"):
        check_mapping("square")
