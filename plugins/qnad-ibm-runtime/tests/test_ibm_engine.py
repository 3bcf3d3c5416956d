"""The engine in local testing mode: counts against the compiled response, settings, costs.

The noise of a fake backend has gate errors, relaxation (also while a spectator waits) and readout
errors, but no ZZ coupling: profiles are compared without it.
"""

import numpy as np
import pytest
import torch
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeSherbrooke
from scipy import stats
from torch import nn

from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.engines import build_engine, run_on
from qnad_art.engines.verify import verify_device
from qnad_art.errors import DeviceError, InvalidInputError, UnknownNameError
from qnad_art.network.conversion import convert
from qnad_art.testing import check_engine
from qnad_ibm_runtime.engine import IbmRuntimeEngine
from qnad_ibm_runtime.errors import CostError

LEVEL = 1e-4


def p_value(counted, expected, shots):
    """Two-sided, of Σ z²; products that are nearly certain are left out."""
    variance = (1 - expected**2) / shots
    use = variance * shots**2 > 25
    z = (counted - expected)[use] / np.sqrt(variance[use])
    tail = stats.chi2.cdf((z**2).sum(), len(z))
    return 2 * min(tail, 1 - tail)


def compiled(device, arguments, readout):
    theta, phi, sites, site, pairs = arguments
    table = response_table(device, sites, max_pairs=2, readout=readout)
    return table.expectation(theta, phi, site, pairs)


@pytest.mark.parametrize("readout", ["twirled", "raw"])
def test_counts_on_nairobi_follow_the_compiled_response(nairobi, readout, random_products):
    """Every kind of word, with and without an echo, and products next to one."""
    arguments = random_products(nairobi, 250, echo=readout == "raw")
    engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=1000, readout=readout)
    counted = engine.expectations(*arguments)
    expected = compiled(nairobi, arguments, readout)
    assert p_value(counted, expected, 1000) > LEVEL
    assert abs(counted - expected).max() < 0.2
    np.testing.assert_allclose(counted * 1000 % 2, 0, atol=1e-9)


def test_counts_on_127_qubits_follow_the_compiled_response(sherbrooke, random_products):
    """Three products side by side, of ECR gates, anywhere on the device."""
    backend = AerSimulator.from_backend(FakeSherbrooke())
    arguments = random_products(sherbrooke, 30, most=1, compute=[0, 37, 60, 126])
    engine = IbmRuntimeEngine(sherbrooke, backend=backend, shots=400, side_by_side=3)
    counted = engine.expectations(*arguments)
    assert p_value(counted, compiled(sherbrooke, arguments, "twirled"), 400) > LEVEL


def test_counts_under_paper_follow_the_compiled_response(nairobi_of_paper, random_products):
    arguments = random_products(nairobi_of_paper, 100)
    engine = IbmRuntimeEngine(nairobi_of_paper, backend="fake_nairobi", shots=1000)
    counted = engine.expectations(*arguments)
    assert p_value(counted, compiled(nairobi_of_paper, arguments, "twirled"), 1000) > LEVEL


@pytest.mark.parametrize(
    ("name", "site"),
    [("nairobi", Site(3, 1, 2)), ("nairobi_of_paper", Site(3, 1))],
)
def test_the_fake_backend_lacks_zz_and_nothing_else(name, site, request):
    """Injected pairs: counts are far from the response with ZZ, and at the one without."""
    without = request.getfixturevalue(name)
    with_zz = without.model_copy(update={"zz_scale": 1.0})
    theta = np.linspace(0.5, 2.5, 20)
    arguments = theta, theta[::-1] + 0.2, [site], np.zeros(20, int), np.full(20, 2)
    counted = IbmRuntimeEngine(with_zz, backend="fake_nairobi", shots=2000).expectations(*arguments)
    assert p_value(counted, compiled(with_zz, arguments, "twirled"), 2000) < 1e-12
    assert p_value(counted, compiled(without, arguments, "twirled"), 2000) > LEVEL


def test_odd_shots_and_one(nairobi):
    arguments = (*np.full((2, 3), 1.2), [Site(0)], np.zeros(3, int), np.zeros(3, int))
    for shots, seed in ((1, 0), (1, 1), (7, 0)):
        engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=shots, seed=seed)
        counted = engine.expectations(*arguments) * shots
        np.testing.assert_allclose(counted % 2, 1, atol=1e-9)
        assert abs(counted).max() <= shots


def test_draws_follow_the_seed_and_calls_are_fresh(nairobi, random_products):
    arguments = random_products(nairobi, 10, most=1)

    def engine(seed):
        return IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=40, seed=seed)

    one = engine(1)
    first, second = (one.expectations(*arguments) for _ in range(2))
    again, other = (engine(seed).expectations(*arguments) for seed in (1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != other).any()


def test_jobs_are_divided_and_put_together(nairobi, random_products):
    """Also a single circuit whose rows do not fit into one job."""
    theta, phi, sites, *_ = random_products(nairobi, 30)
    where = theta, phi, sites, np.zeros(30, int), np.zeros(30, int)
    engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=1000, shots_a_job=4000)
    cost = engine.cost(*where[2:])
    assert (cost.circuits, cost.executions, cost.jobs) == (2, 60, 8)
    assert p_value(engine.expectations(*where), compiled(nairobi, where, "twirled"), 1000) > LEVEL


def test_conforms(nairobi):
    check_engine(
        "ibm-runtime",
        device=nairobi,
        backend="fake_nairobi",
        products=100,
        shots=500,
        max_shots=10**9,
    )


class TestCost:
    @pytest.mark.parametrize("name", ["nairobi", "nairobi_of_paper"])
    def test_counts_circuits_shots_and_seconds(self, name, request):
        """By hand: 4 plain rows beside 4 injected ones, then 2 injected ones; each flipped too."""
        device = request.getfixturevalue(name)
        sites = [Site(4), Site(0, 1) if name == "nairobi_of_paper" else Site(0, 1, kind="wait")]
        site, pairs = np.array([0] * 4 + [1] * 6), np.array([0] * 4 + [-3] * 6)
        engine = IbmRuntimeEngine(device, backend="fake_nairobi", shots=100, rep_delay=1e-4)
        cost = engine.cost(sites, site, pairs)
        assert (cost.products, cost.circuits, cost.executions) == (10, 4, 12)
        assert (cost.shots, cost.jobs) == (600, 2)
        qubit, neighbour = device.qubits[0], device.qubits[1]
        edge = device.edge_of[Site(0, 1).gate(device)]
        block = 2 * neighbour.x_duration
        if name == "nairobi_of_paper":
            block += 3 * qubit.sx_duration + 6 * edge.duration
        else:  # all sx last equally long: the window is three of them
            block += 5 * qubit.sx_duration + 3 * edge.wait
        plain = block + 5.560888888888889e-06 + 1e-4
        assert cost.seconds == pytest.approx(300 * (2 * plain + qubit.x_duration), rel=1e-9)
        assert "10 products in 4 circuits, 12 executions, 600 shots" in str(cost)

    def test_of_a_layer(self, nairobi):
        x = torch.ones(3, 4, dtype=torch.float64)
        module = convert(nn.Linear(4, 2).double(), x, device=nairobi)
        engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=10)
        (layer,) = module.layers.values()
        cost = engine.layer_cost(layer, x)
        assert cost.products == 24
        assert cost.shots == 10 * cost.executions / 2

    def test_more_than_max_shots_is_refused_before_anything_is_sent(self, nairobi, monkeypatch):
        engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=10, max_shots=25)
        monkeypatch.setattr(engine.connection, "send", lambda *a, **k: pytest.fail("sent"))
        products = (*np.ones((2, 3)), [Site(0)], np.zeros(3, int), np.zeros(3, int))
        with pytest.raises(CostError, match=r"30 shots more.*after 0.*max_shots is 25"):
            engine.expectations(*products)

    def test_max_shots_is_of_the_engines_life(self, nairobi):
        engine = IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=10, max_shots=25)
        product = np.ones(1), np.ones(1), [Site(0)], np.zeros(1, int), np.zeros(1, int)
        engine.expectations(*product)
        engine.expectations(*product)
        with pytest.raises(CostError, match="10 shots more would be sent, after 20"):
            engine.expectations(*product)


class TestSettings:
    def test_no_backend_is_an_error(self, nairobi):
        with pytest.raises(InvalidInputError, match="without a backend that you name"):
            build_engine("ibm-runtime", nairobi, shots=10)

    def test_by_name_from_the_environment(self, nairobi, monkeypatch, random_products):
        monkeypatch.setenv("QNAD_IBM_BACKEND", "fake_nairobi")
        monkeypatch.setenv("QNAD_IBM_MAX_SHOTS", "123")
        engine = build_engine("ibm-runtime", nairobi, shots=10)
        assert engine.settings.max_shots == 123
        assert engine.connection.backend.name == "fake_nairobi"
        assert build_engine("ibm-runtime", nairobi, shots=10, max_shots=5).settings.max_shots == 5

    def test_needs_shots(self, nairobi):
        with pytest.raises(InvalidInputError, match="only counts: give shots"):
            IbmRuntimeEngine(nairobi, backend="fake_nairobi")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_shot": 5}, r"max_shot: Extra inputs.*Valid: backend, mode.*QNAD_IBM_"),
            ({"mode": "express"}, "mode: Input should be 'batch', 'session' or 'job'"),
            ({"max_shots": 0}, "max_shots: Input should be greater than or equal to 1"),
        ],
    )
    def test_wrong_ones_are_named(self, nairobi, settings, message):
        with pytest.raises(InvalidInputError, match=message):
            IbmRuntimeEngine(nairobi, backend="fake_nairobi", shots=1, **settings)

    def test_unknown_fake_backend(self, nairobi):
        engine = IbmRuntimeEngine(nairobi, backend="fake_nairobbi", shots=1)
        with pytest.raises(UnknownNameError, match="Did you mean 'fake_nairobi'"):
            engine.cost([Site(0)], np.zeros(1, int), np.zeros(1, int))

    def test_another_device_than_the_profiles(self, sherbrooke):
        engine = IbmRuntimeEngine(sherbrooke, backend="fake_nairobi", shots=1)
        products = np.ones(1), np.ones(1), [Site(0)], np.zeros(1, int), np.zeros(1, int)
        with pytest.raises(DeviceError, match=r"fake_nairobi has no ecr.*use load_device"):
            engine.expectations(*products)

    def test_gates_of_another_length_than_the_profiles(self, nairobi, nairobi_of_paper):
        """Schedules would be wrong. Under ``paper`` there are none."""
        product = np.ones(1), np.ones(1), [Site(0)], np.zeros(1, int), np.zeros(1, int)
        for device in (nairobi, nairobi_of_paper):
            slow = device.qubits[6].model_copy(update={"x_duration": 5e-8})
            device = device.model_copy(update={"qubits": (*device.qubits[:6], slow)})
            engine = IbmRuntimeEngine(device, backend="fake_nairobi", shots=1)
            if device.crosstalk_model == "paper":
                assert abs(engine.expectations(*product)) == 1
                continue
            with pytest.raises(DeviceError, match=r"x on \(6,\) takes 3.556e-08 s, but 5e-08 s"):
                engine.expectations(*product)


def test_runs_layers_and_verifies_by_name(nairobi, monkeypatch):
    monkeypatch.setenv("QNAD_IBM_BACKEND", "fake_nairobi")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = convert(nn.Linear(3, 2).double(), x, device=nairobi, shots=20_000)
    with torch.no_grad(), run_on(module, "ibm-runtime"):
        found = module(x)
    (layer,) = module.layers.values()
    mean, _ = layer.moments(x)
    torch.testing.assert_close(found, mean.detach(), rtol=0, atol=0.1)
    result = verify_device(nairobi, engine="ibm-runtime", products=40, max_pairs=1, shots=500)
    assert result.passed
    assert result.largest_difference is None
