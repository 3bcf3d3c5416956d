"""Shot noise: its draws, the cheaper forms of its variance, and their gradients."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from qnad_art import convert
from qnad_art.errors import InvalidInputError
from qnad_art.layers.noise_source import FEW, PIECE, NoiseSource
from qnad_art.layers.speed import variance
from qnad_art.layers.speed.shot_noise import sum_of_squares

MANY = 3 * PIECE + 5


class TestDraws:
    @pytest.mark.parametrize("count", [FEW // 2, MANY])
    def test_standard_normal(self, count):
        draw = NoiseSource(3).normal_like(torch.empty(count)).numpy()
        assert stats.kstest(draw, "norm").pvalue > 1e-3
        assert abs(draw.mean()) * count**0.5 < stats.norm.isf(1e-4)
        low, high = stats.chi2.interval(1 - 1e-4, count)
        assert low < np.square(draw.astype(float)).sum() < high

    def test_neighbours_and_pieces_are_independent(self):
        draw = NoiseSource(4).normal_like(torch.empty(2 * PIECE)).numpy()
        for shift in (1, 2, 3, 4, PIECE):
            z = np.corrcoef(draw[:-shift], draw[shift:])[0, 1] * (len(draw) - shift) ** 0.5
            assert abs(z) < stats.norm.isf(1e-5)

    def test_the_number_of_cores_does_not_matter(self):
        threads = torch.get_num_threads()
        try:
            drawn = []
            for number in (1, 2):
                torch.set_num_threads(number)
                drawn.append(NoiseSource(5).normal_like(torch.empty(MANY)))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(*drawn)

    def test_draws_of_one_pass_are_independent_and_those_of_a_frozen_one_come_again(self):
        source = NoiseSource(6)

        def drawn(sizes=(FEW, 5, FEW)):
            with source.forward_pass():
                return [source.normal_like(torch.empty(size)) for size in sizes]

        with source.frozen():
            first, again = drawn(), drawn()
            alone = source.normal_like(torch.empty(FEW))
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one, other)
        draws = torch.stack([first[0], first[2], alone, *drawn()[::2]])
        z = (torch.corrcoef(draws) - torch.eye(len(draws))) * FEW**0.5
        assert z.abs().max() < stats.norm.isf(1e-5)

    @pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
    def test_type_and_shape_are_the_reference_s(self, kind):
        for shape in ((), (0,), (3, 2), (FEW, 3)):
            draw = NoiseSource(0).normal_like(torch.empty(shape, dtype=kind))
            assert draw.shape == shape
            assert draw.dtype == kind


@pytest.fixture
def forms(monkeypatch):
    """Function: let every layer take the form of this name, however wrong."""

    def force(name):
        monkeypatch.setattr(variance, "cheapest", lambda kernels, spread: name)

    return force


def form_of(kernels):
    """Name of the form of these kernels."""
    if not isinstance(kernels, variance.Reduced):
        return "full"
    if kernels.mixing.dim() > 1:
        return f"mixed {kernels.mixing.shape[1]}"
    return "uniform" if kernels.patterns is None else "shared"


LAYERS = {
    "linear": (lambda: nn.Linear(40, 5), (7, 40)),
    "tokens": (lambda: nn.Linear(40, 5), (3, 4, 40)),
    "conv1d": (lambda: nn.Conv1d(6, 5, 3, stride=2, padding=2, dilation=2), (4, 6, 12)),
    "conv2d": (lambda: nn.Conv2d(4, 5, 3, padding=1), (4, 4, 8, 8)),
    "reflected": (lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), (4, 4, 8, 8)),
}


def moments(plain, x, shots=100):
    module = convert(plain, x, shots=shots, seed=1)
    with torch.no_grad():
        return module, module.network.moments(x)


@pytest.mark.parametrize("form", ["uniform", "shared", "mixed 16"])
@pytest.mark.parametrize("name", LAYERS)
class TestForms:
    def test_exact_where_all_activations_are_alike(self, name, form, forms):
        make, shape = LAYERS[name]
        plain, x = make().double(), torch.full(shape, 0.7).double()
        if name in ("conv1d", "conv2d"):  # at the borders not all of the kernel is executed
            plain.padding = (0,) * len(plain.padding)
        _, (_, exact) = moments(plain, x)
        forms(form)
        _, (_, cheap) = moments(plain, x)
        torch.testing.assert_close(cheap, exact, rtol=1e-10, atol=0)

    def test_unbatched(self, name, form, forms):
        make, shape = LAYERS[name]
        forms(form)
        plain, x = make().double(), torch.rand(shape).double()
        module, (_, batch) = moments(plain, x)
        with torch.no_grad():
            _, one = module.network.moments(x[0])
            torch.testing.assert_close(one, batch[0])
            assert module.network.compiled(x[0]).shape == one.shape

    def test_gradients_flow_through_it(self, name, form, forms):
        make, shape = LAYERS[name]
        forms(form)
        plain = make().double()
        x = 0.1 + 0.8 * torch.rand(
            shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
        )
        module = convert(plain, torch.ones_like(x), shots=4, seed=1).requires_grad_(False)
        with module.frozen_draw():
            assert torch.autograd.gradcheck(module, x[:2].requires_grad_(), atol=1e-4)
            assert torch.autograd.gradgradcheck(module, x[:1].requires_grad_(), atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [40, PIECE])
def test_with_gradients_the_noise_is_the_same(name, size, monkeypatch):
    monkeypatch.setattr("qnad_art.layers.noise_source.OUTPUT_PIECE", size)
    make, shape = LAYERS[name]
    x = torch.rand(shape)
    module = convert(make(), x, shots=100, seed=1).requires_grad_(False)
    with module.frozen_draw():
        with torch.no_grad():
            expected, again = module(x), module(x)
        found = module(x.clone().requires_grad_())
    assert torch.equal(expected, again)
    assert found.requires_grad
    torch.testing.assert_close(found, expected)


def test_the_predicted_error_is_that_of_independent_activations():
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(2000, 20, 1)
    nn.init.normal_(plain.weight, generator=generator)
    x = torch.rand((400, 2000, 1, 1), generator=generator) ** 3
    module = convert(plain, x, shots=100, percentile=100)
    layer = module.network
    layer.input_spread, spread = None, layer.input_spread
    full = layer.kernels().variance
    with torch.no_grad():
        _, exact = layer.moments(x)
    predicted = {
        f.__name__: variance.error(full, f(full), spread=spread)
        for f in (variance.uniform, variance.shared)
    }
    layer.input_spread = spread
    assert form_of(layer.kernels().variance) == "uniform"
    with torch.no_grad():
        _, cheap = layer.moments(x)
    off = (cheap / exact - 1).square().mean(0).sqrt().max()
    assert float(off) == pytest.approx(predicted["uniform"], rel=0.15)
    assert off < 1e-3


@pytest.mark.parametrize(
    ("channels", "form"), [(200, "mixed 16"), (150, "mixed 32"), (100, "full")]
)
def test_outputs_are_mixed_from_a_few_where_that_is_good_enough(channels, form):
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(channels, 64, 2)
    nn.init.normal_(plain.weight, generator=generator)
    x = torch.rand((200, channels, 3, 3), generator=generator) ** 3
    module = convert(plain, x, shots=100, percentile=100)
    layer = module.network
    assert form_of(layer.kernels().variance) == form
    found, gradients = [], []
    with module.frozen_draw():
        for spread in (layer.input_spread, None):
            layer.input_spread = spread
            found.append(layer.moments(x)[1].detach())
            gradients += torch.autograd.grad(module(x[:5]).square().sum(), layer.weight)
    off = found[0] / found[1] - 1
    assert off.square().mean().sqrt() < 1e-3
    assert off.mean((0, 2, 3)).abs().max() < 1e-4
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert difference < 1e-3


@pytest.mark.parametrize("plain", [nn.Conv2d(6, 4, 3), nn.Linear(54, 4)], ids=["conv", "linear"])
def test_in_tuning_the_variance_is_a_constant_that_is_right_on_average(plain):
    generator = torch.Generator().manual_seed(3)
    nn.init.normal_(plain.weight, generator=generator)
    x = torch.rand((200, 6, 3, 3), generator=generator)
    x = x if isinstance(plain, nn.Conv2d) else x.flatten(1)
    layer = convert(plain, x, shots=100, percentile=100).network
    wanted = torch.zeros_like(plain.weight, requires_grad=True)
    with torch.no_grad():
        exact = layer.moments(x)[1]
        layer.tune(wanted)
        rough = layer.moments(x)[1]
    assert (rough == rough[:1]).all()
    assert exact.std(0).min() > 1e-3 * exact.mean()
    torch.testing.assert_close(rough[0], exact.mean(0), rtol=1e-3, atol=0)
    drawn = torch.stack([layer(x) for _ in range(50)])
    assert drawn.requires_grad
    noise = layer.noise_scale().view(rough[0].shape)
    ratio = (drawn.detach() - drawn.detach().mean(0)).square().mean((0, 1)) / (rough[0] * noise**2)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 49 / 50), rtol=0.06, atol=0)


def test_channels_that_are_unlike_make_no_error_on_average():
    """Without the constant, outputs that look at the louder channels would be off throughout."""
    generator = torch.Generator().manual_seed(3)
    plain = nn.Conv2d(60, 12, 3)
    nn.init.normal_(plain.weight, generator=generator)
    loud = torch.linspace(0.1, 1, 60).view(-1, 1, 1)
    x = loud * (0.8 + 0.2 * torch.rand((50, 60, 7, 7), generator=generator))
    module = convert(plain, x, shots=100, percentile=100)
    layer = module.network
    assert form_of(layer.kernels().variance) in ("uniform", "shared")
    off = []
    for spread, squares in (
        (None, None),
        (layer.input_spread, None),
        (layer.input_spread, layer.input_squares),
    ):
        layer.input_spread, layer.input_squares = spread, squares
        with torch.no_grad():
            off.append(layer.moments(x)[1])
    exact, plainly, corrected = off
    worst = [float((v / exact - 1).mean((0, 2, 3)).abs().max()) for v in (plainly, corrected)]
    assert worst[0] > 5e-4
    assert worst[1] < 5e-5
    assert (corrected / exact - 1).square().mean().sqrt() < 1e-3


def test_a_cheaper_form_is_taken_only_within_the_tolerance():
    plain, x = nn.Linear(30, 4), torch.rand(50, 30)
    kernels = convert(plain, x, shots=100).network.kernels()
    assert form_of(kernels.variance) == "full"


def test_noise_of_the_pieces_is_that_of_the_whole():
    """Mean and variance of large outputs, which are worked on in pieces, against their moments."""
    generator = torch.Generator().manual_seed(1)
    plain = nn.Conv2d(3, 16, 3, padding=1)
    x = torch.rand((1, 3, 32, 32), generator=generator).expand(100, 3, 32, 32)
    module = convert(plain, x[:1], shots=64, seed=2)
    with torch.no_grad():
        mean, var = (moment[0] for moment in module.network.moments(x[:1]))
        var = var * module.network.noise_scale() ** 2
        sample = module(x)
    assert sample.numel() > 4 * PIECE
    z = (sample.mean(0) - mean) / (var / len(x)).sqrt()
    assert stats.kstest(z.numpy().ravel(), "norm").pvalue > 1e-3
    chi = sample.sub(mean).square().div(var).sum()
    low, high = stats.chi2.interval(1 - 1e-4, sample.numel())
    assert low < chi < high


def test_sum_of_squares():
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(sum_of_squares(x, 2.0, 1), (x / 2).square().sum(1, keepdim=True))
    assert torch.autograd.gradcheck(lambda v: sum_of_squares(v, 2.0, 1), x)
    assert sum_of_squares(x[:0], 2.0, 1).shape == (0, 1, 4)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_types_have_the_same_variance(kind):
    plain, x = nn.Conv2d(8, 8, 3), torch.rand(4, 8, 9, 9)
    module = convert(plain, x, shots=100, seed=0)
    with torch.no_grad():
        _, single = module.network.moments(x)
        other = module.to(kind)
        mean, found = other.network.moments(x.to(kind))
        assert mean.dtype == kind
        assert other(x.to(kind)).dtype == kind
        scale = other.network.noise_scale()
    assert found.dtype == (torch.float32 if kind == torch.bfloat16 else kind)
    assert scale.dtype != torch.bfloat16
    torch.testing.assert_close(found.float(), single, rtol=5e-3, atol=0)


@pytest.mark.parametrize(("percentile", "passes"), [(100.0, 2), (99.0, 3)])
def test_calibration_measures_all_in_as_few_passes_as_can_be(percentile, passes):
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    x = torch.rand(50, 1, 8, 8)
    module = convert(plain)
    calls = []
    module.network.register_forward_hook(lambda *_: calls.append(1))
    module.calibrate(x, percentile=percentile, batch_size=50)
    assert len(calls) == passes
    for layer, values in ((module.network[0], x), (module.network[3], plain[:3](x))):
        values = values.detach().abs() / layer.input_scale
        squares = values.clamp_max(1).square().transpose(0, 1).flatten(1)
        assert layer.clipped == pytest.approx(float((values > 1).float().mean()), abs=1e-6)
        assert layer.input_squares == pytest.approx(squares.mean(1).tolist(), abs=1e-5)
        within = squares.var(1, correction=0).mean().sqrt()
        assert layer.input_spread == pytest.approx(float(within), rel=1e-3)


@pytest.mark.parametrize("count", [20, 21, 32])
def test_gradients_of_weights_do_not_change_the_draw(count):
    """Their path draws in pieces, too, where an output is larger than one."""
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 28 * 28, 3))
    x = torch.rand((count, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    module = convert(network.eval(), x, shots=100, seed=0)
    with module.frozen_draw():
        watched = module(x)
        with torch.no_grad():
            expected = module(x)
    torch.testing.assert_close(watched.detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(InvalidInputError, match=f"seed is {seed}"):
        NoiseSource(seed)


def test_a_frozen_source_stays_frozen_when_it_is_reseeded():
    source = NoiseSource(0)
    like = torch.empty(3)

    def draw():
        with source.forward_pass():
            return source.normal_like(like)

    with source.frozen():
        before = draw()
        source.reseed(1)
        assert torch.equal(draw(), draw())
        assert not torch.equal(draw(), before)
    assert not torch.equal(draw(), draw())
