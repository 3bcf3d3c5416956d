"""The circuit engine against the compiled layers: same numbers, same law, same gradients."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from qnad_art.circuits.product import Site
from qnad_art.engines import run_on
from qnad_art.engines.aer import AerEngine
from qnad_art.errors import CalibrationError, InvalidInputError, UnknownNameError
from qnad_art.network.conversion import convert


@pytest.fixture
def problem(small_net, random_tensor, random_crosstalk):
    """Function: the small network with random crosstalk, and inputs some of which saturate."""

    def make(**settings):
        x = random_tensor(2, 1, 4, 4)
        module = convert(small_net(), x, **{"seed": 1, "max_pairs": 1, **settings})
        return random_crosstalk(module, most=1), 1.1 * x

    return make


def constant(layer, x):
    """An engine that runs nothing."""
    return layer.classical(x) * 0 + 7


class TestAerEngine:
    @pytest.mark.parametrize(
        ("readout", "bias"), [("twirled", "classical"), ("raw", "classical"), ("raw", "quantum")]
    )
    def test_whole_network_equals_compiled(self, problem, nairobi, readout, bias):
        module, x = problem(readout=readout, bias=bias)
        expected = module(x)
        with run_on(module, AerEngine(nairobi, readout=readout)), torch.no_grad():
            torch.testing.assert_close(module(x), expected.detach(), rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (nn.Conv1d(2, 2, 3, stride=2, padding=1, groups=2), (1, 2, 5)),
            (nn.Conv2d(1, 1, 2, padding="same", dilation=2), (1, 1, 3, 3)),
            (nn.Conv2d(1, 1, 2, padding=1, padding_mode="reflect", bias=False), (1, 1, 2, 2)),
            (nn.Linear(4, 2), (2, 2, 4)),
        ],
    )
    def test_every_kind_of_layer(self, layer, shape, nairobi, random_tensor):
        x = random_tensor(*shape)
        module = convert(layer.double(), x, max_pairs=1)
        with run_on(module, AerEngine(nairobi)), torch.no_grad():
            result = module(x)
        torch.testing.assert_close(result, module(x).detach(), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("readout", ["twirled", "raw"])
    def test_counts_follow_the_compiled_law(self, nairobi, readout, random_tensor):
        """z-scores of counts against the exact binomial moments: chi-square and mean at 1e-4."""
        random = np.random.default_rng(0)
        theta, phi = random.uniform(-np.pi, np.pi, (2, 400))
        sites, shots = [Site(0), Site(0, 1)], 100
        site, pairs = np.repeat([0, 1], 200), np.repeat([0, -2], 200)
        arguments = (theta, phi, sites, site, pairs)
        exact = AerEngine(nairobi, readout=readout).expectations(*arguments)
        counted = AerEngine(nairobi, readout=readout, shots=shots, seed=1).expectations(*arguments)
        z = (counted - exact) / np.sqrt((1 - exact**2) / shots)
        assert abs(z.sum()) / np.sqrt(len(z)) < stats.norm.isf(1e-4 / 2)
        # E² of a standardised ±1 mean has the variance 2 + (kurtosis of one shot) / shots.
        kurtosis = (4 - 6 * (1 - exact**2)) / (1 - exact**2)
        spread = np.sqrt((2 + kurtosis / shots).sum())
        assert abs((z**2).sum() - len(z)) / spread < stats.norm.isf(1e-4 / 2)
        np.testing.assert_allclose(counted * shots, np.rint(counted * shots), atol=1e-9)

    def test_network_with_shots_agrees_with_compiled_draws(self, problem, nairobi):
        """First layer of the network, counts against compiled draws: chi-square of z at 1e-4."""
        module, x = problem(shots=150)
        x = x[:1].expand(8, 1, 4, 4)
        first = module.network[0]
        with torch.no_grad():
            draws = first.compiled(x[:1].expand(4000, 1, 4, 4).contiguous())
            counted = AerEngine(nairobi, shots=150, seed=3)(first, x)
        z = ((counted - draws.mean(0)) / draws.std(0)).flatten().numpy()
        low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], len(z))
        assert low < (z**2).sum() < high
        assert abs(z.sum()) / np.sqrt(len(z)) < stats.norm.isf(5e-5)

    def test_seeds_reproduce(self, nairobi):
        arguments = (np.full(20, 0.4), np.full(20, 1.0), [Site(0)], *np.zeros((2, 20), dtype=int))

        def run(seed):
            return AerEngine(nairobi, shots=50, seed=seed).expectations(*arguments)

        assert (run(1) == run(1)).all()
        assert (run(1) != run(2)).any()

    def test_gradient_is_the_compiled_one(self, problem, nairobi):
        module, x = problem()
        gradients = []
        for engine in (None, AerEngine(nairobi, shots=20)):
            inputs = x[:1].clone().requires_grad_()
            module.zero_grad()
            if engine is None:
                module(inputs).sum().backward()
            else:
                with run_on(module, engine, layers=["3"]):
                    module(inputs).sum().backward()
            gradients.append([inputs.grad, *(p.grad for p in module.parameters())])
        for compiled, circuits in zip(*gradients, strict=True):
            torch.testing.assert_close(circuits, compiled, rtol=1e-12, atol=1e-12)

    def test_too_many_products_are_refused_with_their_number(self, problem, nairobi):
        module, x = problem()
        # 2 images, 2 channels, 4 positions, 9 products less padding: 4 + 6 + 6 + 9.
        engine = AerEngine(nairobi, max_products=99)
        with (
            run_on(module, engine, layers=["0"]),
            pytest.raises(InvalidInputError, match=r"100 circuits.*max_products=99"),
        ):
            module(x)

    @pytest.mark.parametrize("settings", [{"readout": "x"}, {"shots": 0}])
    def test_bad_settings(self, nairobi, settings):
        with pytest.raises(InvalidInputError):
            AerEngine(nairobi, **settings)

    def test_uncalibrated_layers_are_refused(self, nairobi):
        module = convert(nn.Linear(2, 2))
        with run_on(module, AerEngine(nairobi)), pytest.raises(CalibrationError):
            module(torch.rand(1, 2))

    def test_unbatched_inputs(self, nairobi, random_tensor):
        x = random_tensor(2, 1, 3, 3)
        module = convert(nn.Conv2d(1, 1, 2).double(), x, max_pairs=0)
        with run_on(module, AerEngine(nairobi)):
            result = module(x[0])
        torch.testing.assert_close(result, module(x[0]), rtol=0, atol=1e-9)


class TestRunOn:
    def test_chosen_layers_only(self, problem):
        module, x = problem()
        with run_on(module, constant, layers=["3"]):
            assert (module(x) == 7).all()
            assert module.network[0].engine is None
        with run_on(module, constant, layers=["0"]):
            assert not (module(x) == 7).all()

    def test_engines_are_restored_also_after_an_error(self, problem):
        module, x = problem()
        expected = module(x)
        with pytest.raises(ZeroDivisionError), run_on(module, constant):
            raise ZeroDivisionError
        assert torch.equal(module(x), expected)

    def test_contexts_nest(self, problem):
        module, x = problem()
        with run_on(module, constant):
            with run_on(module, lambda layer, x: layer.classical(x), layers=["3"]):
                assert not (module(x) == 7).all()
            assert (module(x) == 7).all()
        assert all(layer.engine is None for layer in module.layers.values())

    def test_unknown_layer_is_refused_with_the_valid_ones(self, problem):
        module, _ = problem()
        with (
            pytest.raises(UnknownNameError, match=r"'features\.\*'.*Valid: 0, 3"),
            run_on(module, constant, layers=["features.*"]),
        ):
            pass
