"""Quantum-executed layers against brute force over products, plain torch, and Aer's counts."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.checkpoint import checkpoint

from qnad_art.device.catalogue import load_device
from qnad_art.engines.aer import AerEngine
from qnad_art.errors import CalibrationError, InvalidInputError, QnadError
from qnad_art.network.conversion import convert

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(layer, x):
    """Input of a convolution with its padding, and where products are executed."""
    if isinstance(layer.padding, str):
        total = [d * (k - 1) * (layer.padding == "same") for k, d in sizes(layer)]
        widths = [(t // 2, t - t // 2) for t in total]
    else:
        widths = [(p, p) for p in layer.padding]
    widths = [(0, 0), (0, 0), *widths]
    mask = np.pad(np.ones(x.shape), widths, mode=MODES[layer.padding_mode])
    return np.pad(x, widths, mode=MODES[layer.padding_mode]), mask > 0


def sizes(layer):
    return list(zip(layer.kernel_size, layer.dilation, strict=True))


def windows(layer, x):
    """For each output position: (index, activations (N, out, J), executed (J,) by output)."""
    if isinstance(layer, nn.Linear):
        yield (), np.broadcast_to(x[:, None], (len(x), layer.out_features, x.shape[1])), None
        return
    x, mask = padded(layer, x)
    spans = [d * (k - 1) + 1 for k, d in sizes(layer)]
    counts = [
        (n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, layer.stride, strict=True)
    ]
    channels = x.shape[1] // layer.groups
    for position in itertools.product(*map(range, counts)):
        steps = zip(position, layer.stride, spans, layer.dilation, strict=True)
        cut = (..., *(slice(p * s, p * s + span, d) for p, s, span, d in steps))
        rows, executed = [], []
        for output in range(layer.out_channels):
            group = output // (layer.out_channels // layer.groups)
            chosen = slice(group * channels, (group + 1) * channels)
            rows.append(x[cut][:, chosen].reshape(len(x), -1))
            executed.append(mask[cut][:1, chosen].reshape(-1))
        yield position, np.stack(rows, 1), np.stack(executed)


def brute_force(module, x):
    """Mean and variance of a one-layer module, product by product."""
    (layer,) = module.layers.values()
    table, shots = module.execution.table, module.shots or math.inf
    weight = layer.weight.detach().numpy().astype(float).reshape(len(layer.weight), -1)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
    as_product = layer.bias is not None and module.execution.bias == "quantum"
    if as_product:  # one more weight, of an input that is always s_x
        weight = np.column_stack([weight, bias / layer.input_scale])
        bias = np.zeros(len(weight))
    scale_w = np.abs(weight).max(1)
    phi = np.arcsin(weight / scale_w[:, None])
    site, pairs = (t.numpy().reshape(weight.shape).astype(int) for t in (layer.site, layer.pairs))
    gain, offset = np.ones(len(weight)), np.zeros(weight.shape)
    if module.gain == "calibrated":
        # What a weight of zero measures, averaged over the largest activations of both signs.
        right, zero = np.full(weight.shape, math.pi / 2), np.zeros(weight.shape)
        offset = sum(table.expectation(t, zero, site, pairs) for t in (right, -right)) / 2
        gain = np.hypot(*np.moveaxis(table.values[site, pairs + table.max_pairs, 2, 1:], -1, 0))
        gain = gain.mean(1)
    mean, variance = {}, {}
    scale = layer.input_scale * scale_w / gain
    for position, values, executed in windows(layer, x.numpy()):
        if as_product:
            last = [(0, 0)] * (values.ndim - 1) + [(0, 1)]
            values = np.pad(values, last, constant_values=layer.input_scale)
            executed = None if executed is None else np.pad(executed, last[1:], constant_values=1)
        theta = np.arcsin(np.clip(values / layer.input_scale, -1, 1))
        full = [np.broadcast_to(a, theta.shape) for a in (phi, site, pairs)]
        product = table.expectation(theta, *full)
        done = np.ones(weight.shape) if executed is None else executed
        mean[position] = scale * ((product - offset) * done).sum(-1) + bias
        variance[position] = scale**2 * ((1 - product**2) * done).sum(-1) / shots

    def stacked(values):
        shape = tuple(1 + max(i) for i in zip(*values, strict=True))
        return np.stack(list(values.values()), -1).reshape(*mean[position].shape, *shape)

    return stacked(mean), stacked(variance)


CASES = {
    "linear": (nn.Linear(7, 3), (7,)),
    "linear without bias": (nn.Linear(4, 2, bias=False), (4,)),
    "one weight": (nn.Linear(1, 1), (1,)),
    "conv1d": (nn.Conv1d(2, 3, 3), (2, 8)),
    "conv1d same even dilated": (nn.Conv1d(2, 2, 4, padding="same", dilation=2), (2, 9)),
    "conv1d strided groups": (nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2), (4, 7)),
    "conv1d circular": (nn.Conv1d(1, 2, 3, padding=2, padding_mode="circular"), (1, 6)),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "conv2d without bias valid": (nn.Conv2d(1, 2, 2, bias=False, padding="valid"), (1, 4, 4)),
    "conv2d same": (nn.Conv2d(1, 2, (2, 3), padding="same", dilation=(2, 1)), (1, 5, 5)),
    "conv2d pointwise": (nn.Conv2d(3, 2, 1, stride=2), (3, 5, 5)),
    "conv2d depthwise": (nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 4, 4)),
    "conv2d all": (
        nn.Conv2d(4, 2, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2),
        (4, 6, 5),
    ),
    "conv2d reflect": (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 4, 5)),
    "conv2d replicate": (nn.Conv2d(2, 2, 3, padding=(2, 0), padding_mode="replicate"), (2, 4, 4)),
    "conv2d circular same": (
        nn.Conv2d(1, 1, 3, padding="same", padding_mode="circular"),
        (1, 4, 4),
    ),
}


def filled(layer, seed=0):
    """A float64 copy with weights that depend on the seed only."""
    layer = copy.deepcopy(layer).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return layer


@pytest.fixture
def case(random_tensor, random_crosstalk, nairobi):
    """Function: (plain layer, module with random crosstalk, inputs that exceed the scale)."""

    def make(name, *, device=nairobi, crosstalk=True, **settings):
        plain, shape = CASES[name]
        plain = filled(plain)
        x = random_tensor(3, *shape)
        module = convert(plain, x, device=device, **{"seed": 1, **settings})
        if crosstalk:
            random_crosstalk(module)
        return plain, module, 1.2 * x

    return make


class TestExpectation:
    @pytest.mark.parametrize("name", CASES)
    def test_is_the_sum_of_the_products(self, name, case):
        for settings in ({"readout": "raw", "gain": "raw"}, {"shots": None}, {"bias": "quantum"}):
            _, module, x = case(name, **settings)
            np.testing.assert_allclose(
                module(x).detach().numpy(), brute_force(module, x)[0], rtol=0, atol=1e-9
            )

    @pytest.mark.parametrize("name", ["linear", "conv1d same even dilated", "conv2d all"])
    @pytest.mark.parametrize(
        ("readout", "bias"), [("twirled", "classical"), ("raw", "classical"), ("raw", "quantum")]
    )
    def test_is_the_sum_of_the_products_where_cosine_counts(
        self, name, readout, bias, case, ecr_line
    ):
        settings = {"compute": (0, 2, 4), "readout": readout, "max_pairs": 2, "bias": bias}
        plain, module, x = case(name, device=ecr_line, crosstalk=False, **settings)
        random = np.random.default_rng(0)
        (layer,) = module.layers.values()
        site = torch.from_numpy(random.integers(3, len(module.plan.sites), layer.product_shape))
        pairs = torch.from_numpy(random.integers(-2, 3, layer.product_shape))
        layer.assign(site, pairs)
        expected = brute_force(module, x)[0]
        np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=1e-9)
        assert np.abs(plain(x).detach().numpy() - expected).max() > 1e-2

    @pytest.mark.parametrize("name", CASES)
    def test_is_the_plain_layer_s_on_the_ideal_device(self, name, case):
        for bias in ("classical", "quantum"):
            plain, module, x = case(name, device=load_device("ideal"), bias=bias)
            inside = x / 1.2
            torch.testing.assert_close(module(inside), plain(inside), rtol=0, atol=1e-10)

    def test_a_quantum_bias_is_the_weight_of_a_constant_input(self, case, random_crosstalk):
        """The same draws, too: a bias adds no randomness but that of its product."""
        plain, module, x = case("linear", bias="quantum", shots=50)
        (layer,) = module.layers.values()
        wider = nn.Linear(8, 3, bias=False).double()
        with torch.no_grad():
            wider.weight.copy_(
                torch.cat([plain.weight, plain.bias[:, None] / layer.input_scale], 1)
            )
        ones = torch.full((3, 1), layer.input_scale, dtype=torch.float64)
        same = convert(wider, torch.cat([x / 1.2, ones], 1), device="ibm_nairobi", shots=50, seed=1)
        random_crosstalk(same)
        assert (same.plan.layers[""].pairs[:, -1] != 0).any()
        wide = torch.cat([x, ones], 1)
        torch.testing.assert_close(module(x), same(wide), rtol=1e-3, atol=1e-3)  # variance: 1e-3
        module.shots = same.shots = None
        torch.testing.assert_close(module(x), same(wide), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", CASES)
    def test_windows_are_the_activations_that_meet_the_weights(self, name, case):
        plain, module, x = case(name, crosstalk=False)
        (layer,) = module.layers.values()
        values, executed, shape = layer.windows(x)
        assert executed.shape == (1, *values.shape[1:])
        weight = plain.weight.reshape(values.shape[1], -1, values.shape[2])
        sums = torch.einsum("ngjp,goj->ngop", values * executed, weight).reshape(shape)
        if plain.bias is not None:
            sums = sums + plain.bias.view(-1, *(1,) * (plain.weight.dim() - 2))
        torch.testing.assert_close(sums, plain(x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", CASES)
    def test_products_of_an_image_are_counted_one_by_one(self, name, case):
        """Zero padding costs nothing; a batch costs what an image does, each time."""
        plain, module, x = case(name, crosstalk=False)
        (layer,) = module.layers.values()
        expected = 0
        for _, values, executed in windows(plain, x.numpy()):
            expected += values[0].size if executed is None else int(executed.sum())
        assert layer.products(x[:1]) == layer.products(x[0]) == expected
        assert layer.products(x) == len(x) * expected

    @pytest.mark.parametrize("name", ["linear", "conv1d", "conv1d circular", "conv2d all"])
    @pytest.mark.parametrize("shots", [None, 100])
    def test_unbatched_inputs(self, name, shots, case):
        _, module, x = case(name, shots=shots)
        with module.frozen_draw():
            torch.testing.assert_close(module(x[1]), module(x[1:2])[0], rtol=0, atol=1e-12)

    def test_linear_takes_leading_dimensions(self, case, random_tensor):
        _, module, _ = case("linear")
        x = random_tensor(2, 3, 7)
        result = module(x)
        assert result.shape == (2, 3, 3)
        torch.testing.assert_close(result.flatten(0, 1), module(x.flatten(0, 1)))

    def test_inputs_beyond_the_scale_saturate(self, case):
        _, module, x = case("linear")
        (layer,) = module.layers.values()
        scale = layer.input_scale
        torch.testing.assert_close(module(100 * x.sign()), module(scale * x.sign()))

    @pytest.mark.parametrize("gain", ["raw", "calibrated"])
    def test_calibrated_gain_undoes_the_contraction(self, gain, random_tensor):
        plain, x = filled(nn.Linear(300, 30, bias=False)), random_tensor(40, 300)
        module = convert(plain, x, gain=gain)
        wanted, got = plain(x).detach(), module(x).detach()
        slope = float((got * wanted).sum() / wanted.square().sum())
        if gain == "calibrated":
            assert slope == pytest.approx(1, abs=0.01)
        else:
            assert 0.85 < slope < 0.97

    def test_zero_weights_stay_finite(self, nairobi):
        plain = nn.Linear(3, 2).double()
        nn.init.zeros_(plain.weight)
        module = convert(plain, torch.rand(2, 3).double(), device=nairobi, shots=10)
        x = torch.rand(2, 3).double().requires_grad_()
        output = module(x)
        output.sum().backward()
        assert output.isfinite().all()
        assert x.grad.isfinite().all()
        assert plain.weight.grad is None
        torch.testing.assert_close(output, plain.bias.expand_as(output))

    def test_single_precision_agrees(self, case, nairobi):
        _, module, x = case("conv2d")
        double = module(x)
        single = copy.deepcopy(module).float()(x.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


SETTINGS = [
    {"gain": "raw", "shots": None},
    {"gain": "calibrated", "shots": None},
    {"gain": "raw", "shots": 64, "readout": "raw"},
    {"gain": "calibrated", "shots": 64},
    {"gain": "calibrated", "shots": 64, "bias": "quantum"},
]


class TestGradients:
    @pytest.fixture
    def differentiable(self, case, ecr_line):
        """Function: a module on the device whose response has every term, and inputs inside."""

        def make(name, settings):
            settings = {"compute": (0, 2, 4), "max_pairs": 8, **settings}
            _, module, x = case(name, device=ecr_line, **settings)
            (layer,) = module.layers.values()
            layer.input_scale *= 1.5  # no activation at the ends, where clamping has a kink
            return module, x

        return make

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    @pytest.mark.parametrize("name", ["linear", "conv1d strided groups", "conv2d reflect"])
    def test_input(self, name, settings, differentiable):
        module, x = differentiable(name, settings)
        with module.frozen_draw():
            assert torch.autograd.gradcheck(module, x[:2].requires_grad_(), fast_mode=True)

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    @pytest.mark.parametrize("name", ["linear", "conv1d strided groups", "conv2d"])
    def test_weights_and_bias(self, name, settings, differentiable):
        """Central differences by in-place edits; the largest weights set the scale s_w."""
        module, x = differentiable(name, settings)
        (layer,) = module.layers.values()
        with module.frozen_draw():
            loss = lambda: module(x).sin().sum()  # noqa: E731
            loss().backward()
            for parameter in (layer.weight, layer.bias):
                flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
                largest = int(flat.abs().argmax())
                for index in {largest, 0, len(flat) // 2, len(flat) - 1}:
                    values = []
                    for step in (1e-6, -1e-6):
                        with torch.no_grad():
                            parameter.view(-1)[index] += step
                            values.append(float(loss()))
                            parameter.view(-1)[index] -= step
                    numeric = (values[0] - values[1]) / 2e-6
                    assert float(gradient[index]) == pytest.approx(numeric, rel=1e-5, abs=1e-6)

    def test_second_backward_needs_no_graph_of_the_first(self, case):
        _, module, x = case("conv2d", shots=100)
        (layer,) = module.layers.values()
        for _ in range(2):
            module(x).sum().backward()
        first = layer.weight.grad.clone()
        layer.weight.grad = None
        module(x).sum().backward()
        assert first.isfinite().all()

    def test_saturated_inputs_have_no_gradient(self, case):
        _, module, x = case("linear")
        (layer,) = module.layers.values()
        x = x.clone().requires_grad_()
        module(x).sum().backward()
        beyond = x.detach().abs() > layer.input_scale
        assert beyond.any()
        assert (x.grad[beyond] == 0).all()
        assert (x.grad[~beyond] != 0).all()

    @pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
    def test_rounding_does_not_saturate(self, kind):
        """The largest activation of the calibration data, in a batch of another size."""
        plain = nn.Linear(2, 1).to(kind)
        module = convert(plain, torch.ones(1, 2))
        eps = torch.finfo(kind).eps
        largest = 1 + 8 * eps if eps < 1e-6 else 1
        x = torch.tensor([[largest, -largest]], dtype=kind, requires_grad=True)
        module(x).sum().backward()
        assert (x.grad != 0).all()

    def test_frozen_weights_get_none(self, case):
        _, module, x = case("conv2d", shots=10)
        module.requires_grad_(False)
        x = x.clone().requires_grad_()
        module(x).sum().backward()
        assert x.grad.abs().sum() > 0
        assert all(p.grad is None for p in module.parameters())

    @pytest.mark.parametrize("name", ["linear", "conv2d"])
    def test_of_a_bias_alone_after_a_pass_without(self, name, case):
        _, module, x = case(name)
        (layer,) = module.layers.values()
        layer.weight.requires_grad_(False)
        with torch.no_grad():
            module(x)
        module(x).sum().backward()
        positions = module(x)[0].numel() // len(layer.bias)
        assert (layer.bias.grad == len(x) * positions).all()

    def test_after_inference_mode(self, case):
        _, module, x = case("conv2d")
        with torch.inference_mode():
            module(x)
        x = x.clone().requires_grad_()
        module(x).sum().backward()
        assert x.grad.isfinite().all()


class TestShots:
    DRAWS = 3000

    def draws(self, module, x):
        (layer,) = module.layers.values()
        with torch.no_grad():
            return layer.compiled(x[:1].expand(self.DRAWS, *x.shape[1:]).contiguous()).numpy()

    @pytest.mark.parametrize("name", ["linear", "conv1d same even dilated", "conv2d all"])
    @pytest.mark.parametrize("gain", ["raw", "calibrated"])
    @pytest.mark.parametrize("readout", ["twirled", "raw"])
    def test_mean_and_variance_are_the_products_own(self, name, gain, readout, case):
        _, module, x = case(name, shots=50, gain=gain, readout=readout)
        self.check(module, x)

    def test_mean_and_variance_where_cosine_counts(self, case, ecr_line):
        settings = {"compute": (0, 2, 4), "shots": 50, "readout": "raw"}
        _, module, x = case("conv1d strided groups", device=ecr_line, **settings)
        self.check(module, x)

    def test_mean_and_variance_where_products_are_almost_certain(self, random_tensor):
        """Ideal device, products near ±1: the variance is far below one a product."""
        plain = filled(nn.Linear(6, 2))
        with torch.no_grad():
            plain.weight.copy_(plain.weight.sign() * (1 + plain.weight.abs() / 10))
        x = random_tensor(2, 6).sign()
        module = convert(plain, x, device="ideal", shots=20, seed=2)
        self.check(module, 0.95 * x)

    @pytest.mark.parametrize("x", [0.95, 0.6, 0.2, -0.2, -0.6])
    def test_variance_where_every_term_is_large(self, x, ecr_line):
        """Strong readout error and coupling, so that no coefficient of E² is small."""
        content = ecr_line.model_dump()
        for qubit in content["qubits"]:
            qubit.update(p1_given_0=0.0, p0_given_1=0.3)
        for edge in content["edges"]:
            edge.update(zz_hz=6e5, error=0.0, duration=5e-7)
        plain = filled(nn.Linear(8, 2, bias=False))
        with torch.no_grad():
            plain.weight.copy_(torch.tensor([[1.0] + 7 * [0.8], [-1.0] + 7 * [-0.6]]))
        device = ecr_line.from_dict(content)
        settings = {"compute": (0, 2, 4), "readout": "raw", "shots": 20, "seed": 4}
        module = convert(plain, torch.ones(1, 8).double(), device=device, **settings)
        site = [s.qubits for s in module.plan.sites].index((0, 1))
        module.network.assign(torch.full((2, 8), site), torch.full((2, 8), 1))
        values = module.execution.table.values[site, module.execution.table.max_pairs + 1]
        assert np.abs(values[1]).max() > 0.3
        self.check(module, torch.full((1, 8), x).double())

    def check(self, module, x):
        mean, variance = (moment[0].ravel() for moment in brute_force(module, x[:1]))
        sample = self.draws(module, x).reshape(self.DRAWS, -1)
        z = (sample.mean(0) - mean) / np.sqrt(variance / self.DRAWS)
        ratio = sample.var(0, ddof=1) / variance * (self.DRAWS - 1)
        level = 1e-5 / len(z)  # of the whole check, over all outputs (Bonferroni)
        assert np.abs(z).max() < stats.norm.isf(level / 2)
        assert ratio.min() > stats.chi2.ppf(level / 2, self.DRAWS - 1)
        assert ratio.max() < stats.chi2.isf(level / 2, self.DRAWS - 1)
        # Outputs are independent of each other.
        correlation = np.corrcoef(sample.T) if len(z) > 1 else np.eye(1)
        correlation = np.atleast_2d(correlation) - np.eye(len(z))
        assert np.abs(correlation).max() * math.sqrt(self.DRAWS) < stats.norm.isf(
            1e-5 / len(z) ** 2
        )

    def test_distribution_is_that_of_aer_s_counts(self, case, nairobi):
        """Two-sample Kolmogorov-Smirnov at level 1e-3: Gaussian draws against real counts."""
        _, module, x = case("linear", shots=200)
        (layer,) = module.layers.values()
        repeats = 60
        counted = AerEngine(nairobi, shots=200, seed=5)(layer, x[:1].expand(repeats, -1)).detach()
        compiled = self.draws(module, x)
        mean, variance = brute_force(module, x[:1])
        z = ((counted.numpy() - mean) / np.sqrt(variance)).ravel()
        other = ((compiled - mean) / np.sqrt(variance)).ravel()
        assert stats.ks_2samp(z, other).pvalue > 1e-3
        assert stats.kstest(z, "norm").pvalue > 1e-3

    def test_more_shots_less_noise(self, case):
        _, module, x = case("linear", shots=10)
        deviation = {}
        for shots in (10, 1000):
            module.shots = shots
            deviation[shots] = self.draws(module, x).std(0)
        np.testing.assert_allclose(deviation[10] / deviation[1000], 10, rtol=0.1)

    def test_torch_s_own_generator_is_not_touched(self, case):
        _, module, x = case("linear", shots=10)
        before = torch.get_rng_state()
        module(x)
        assert torch.equal(torch.get_rng_state(), before)


class TestCache:
    """What the layer computes always belongs to its present weights and settings."""

    def stays_right(self, module, x, change):
        before = module(x)
        changed = change(module) or module
        after = changed(x.to(next(changed.parameters()).dtype))
        expected = brute_force(changed, x)[0]
        tolerance = 1e-9 if after.dtype == torch.float64 else 1e-4
        np.testing.assert_allclose(after.detach().numpy(), expected, rtol=0, atol=tolerance)
        return before, after

    def in_place(self, module):
        with torch.no_grad():
            module.network.weight.mul_(torch.linspace(0.5, 1.5, module.network.weight.shape[-1]))

    def bias(self, module):
        with torch.no_grad():
            module.network.bias += 1

    def optimizer(self, module):
        module(torch.ones(1, *module.test_shape).double()).sum().backward()
        torch.optim.SGD(module.parameters(), 0.1).step()

    def load_state(self, module):
        state = {name: 0.7 - value for name, value in module.state_dict().items()}
        module.load_state_dict(state)

    def replaced(self, module):
        module.network.weight = nn.Parameter(module.network.weight.detach().flip(0) ** 2)

    def plan(self, module):
        module.remove_crosstalk()

    def gain(self, module):
        module.gain = "raw"

    def scale(self, module):
        module.network.input_scale *= 2

    def calibrated(self, module):
        module.calibrate(3 * torch.ones(1, *module.test_shape).double())

    @pytest.mark.parametrize("name", ["linear", "conv2d"])
    @pytest.mark.parametrize(
        "change",
        [
            *("in_place", "bias", "optimizer", "load_state", "replaced"),
            *("plan", "gain", "scale", "calibrated"),
        ],
    )
    @pytest.mark.parametrize("track", [True, False])
    def test_changes_are_seen(self, name, change, track, case):
        _, module, x = case(name)
        module.test_shape = x.shape[1:]
        with torch.set_grad_enabled(track or change == "optimizer"):
            before, after = self.stays_right(module, x, getattr(self, change))
        assert (before - after).abs().max() > 1e-6

    def test_edits_of_data_are_seen_after_invalidate(self, case):
        _, module, x = case("linear")

        def change(module):
            module.network.weight.data.mul_(2)
            module.network.invalidate()

        self.stays_right(module, x, change)

    @pytest.mark.parametrize(
        "copied",
        [
            copy.deepcopy,
            lambda m: pickle.loads(pickle.dumps(m)),
            lambda m: copy.deepcopy(m).float(),
            lambda m: m.float().double(),
        ],
    )
    def test_copies_compute_the_same_and_are_independent(self, copied, case):
        _, module, x = case("conv2d")
        before, after = self.stays_right(module, x, copied)
        torch.testing.assert_close(before, after.to(before.dtype), rtol=0, atol=1e-4)

    def test_change_of_a_copy_leaves_the_original(self, case):
        _, module, x = case("conv2d", shots=10)
        module.shots = None
        before = module(x)
        twin = copy.deepcopy(module)
        self.in_place(twin)
        twin.remove_crosstalk()
        twin.shots = 5
        assert torch.equal(module(x), before)
        assert module.shots is None

    def test_sizes_of_inputs_may_change(self, case, random_tensor):
        _, module, _ = case("conv2d")
        for size in ((5, 4), (3, 6), (5, 4)):
            x = random_tensor(2, 2, *size)
            expected = brute_force(module, x)[0]
            np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-9)


class TestErrors:
    def test_uncalibrated(self):
        with pytest.raises(CalibrationError, match="calibrate"):
            convert(nn.Linear(3, 2))(torch.rand(1, 3))

    @pytest.mark.parametrize("shots", [0, -5, 1.5, "many"])
    def test_bad_shots(self, shots, case):
        with pytest.raises(InvalidInputError, match="shots"):
            convert(nn.Linear(3, 2), shots=shots)
        _, module, _ = case("linear")
        with pytest.raises(InvalidInputError, match="shots"):
            module.shots = shots
        assert module.shots is None

    def test_bad_gain(self):
        with pytest.raises(InvalidInputError, match="calibrated, raw"):
            convert(nn.Linear(3, 2), gain="none")

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_inputs_that_are_not_finite(self, bad, case):
        _, module, x = case("linear")
        x[1, 2] = bad
        with pytest.raises(InvalidInputError, match="NaN or infinite"):
            module(x)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_calibration_data_that_is_not_finite(self, bad):
        with pytest.raises(QnadError, match="NaN"):
            convert(nn.Linear(3, 2), torch.full((4, 3), bad))

    def test_assignment_of_another_shape(self, case):
        _, module, _ = case("linear")
        with pytest.raises(InvalidInputError, match=r"shape \(3, 7\)"):
            module.network.assign(torch.zeros(2, 2), torch.zeros(2, 2))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_fused_optimizers_train_what_runs(make, small_net, random_tensor):
    """Their kernels change weights without raising the version by which changes are noticed."""
    x = random_tensor(8, 1, 4, 4)
    losses = []
    for fused in (False, True):
        module = convert(small_net(), x, device="ideal")
        optimizer = make(module.parameters(), lr=0.05, fused=fused)
        for _ in range(5):
            optimizer.zero_grad()
            loss = module(x).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(float(module(x).square().sum().detach()))
        for layer in module.layers.values():
            layer.invalidate()
        assert float(module(x).square().sum().detach()) == pytest.approx(losses[-1], rel=1e-9)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("bias", ["classical", "quantum"])
def test_second_derivatives_by_weights_are_those_of_the_plain_network(
    bias, small_net, random_tensor
):
    network, x = small_net(), random_tensor(8, 1, 4, 4)
    module = convert(network, x, device="ideal", bias=bias)
    found = []
    for model in (network, module.network):
        weights = list(model.parameters())
        first = torch.autograd.grad(model(x).square().sum(), weights, create_graph=True)
        squares = torch.stack([part.square().sum() for part in first]).sum()
        found.append((first, torch.autograd.grad(squares, weights)))
    for expected, result in zip(*found, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


class Checkpointed(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return checkpoint(self.network, x, use_reentrant=False)


@pytest.mark.parametrize("shots", [None, 64])
def test_activation_checkpointing_has_the_same_noise_or_none(shots, small_net, random_tensor):
    x = random_tensor(8, 1, 4, 4).requires_grad_()
    plain, checkpointed = (
        convert(network, x.detach(), shots=shots, seed=0)
        for network in (small_net(), Checkpointed(small_net()))
    )
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    loss = checkpointed(x).square().sum()
    if shots is None:
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected)
    else:
        with pytest.raises(InvalidInputError, match="activation checkpointing"):
            torch.autograd.grad(loss, x)
