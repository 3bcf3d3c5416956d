"""Conversion of whole networks, their calibration, report and shot noise."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import torchvision
from rich.console import Console
from torch import nn
from torch.nn.utils import prune

from qnad_art.errors import ClippingWarning, InvalidInputError
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.models.architectures import build_model
from qnad_art.network.conversion import ConversionReport, LayerReport, conversion_report, convert
from qnad_art.network.module import AveragedDraws


def network(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "resnet18":
            model = torchvision.models.resnet18(num_classes=10)
        else:
            model = build_model(name, num_classes=10, seed=0)
        for module in model.modules():  # batch norm that does something
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def images(name, n=2):
    shape = {"lenet5": (1, 28, 28), "vgg16_bn": (3, 32, 32), "resnet18": (3, 64, 64)}[name]
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def converted(small_net, random_tensor):
    """Function: the small network converted, and four inputs."""

    def make(**settings):
        x = random_tensor(4, 1, 4, 4)
        return convert(small_net(), x, **{"seed": 3, **settings}), x

    return make


class TestNetworks:
    @pytest.mark.parametrize("name", ["lenet5", "vgg16_bn", "resnet18"])
    def test_ideal_device_computes_the_same(self, name):
        model, x = network(name), images(name)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        module = convert(model, x, device="ideal")
        with torch.no_grad():
            expected, result = model(x), module(x)
        assert (result - expected).abs().max() < 1e-4 * expected.abs().max()
        assert not any(isinstance(part, QuantumLayer) for part in model.modules())
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert {f"network.{key}" for key in state} == set(module.state_dict())

    def test_original_and_copy_share_nothing(self, converted, small_net):
        model = small_net()
        module = convert(model, torch.rand(2, 1, 4, 4))
        with torch.no_grad():
            module.network[0].weight.zero_()
        assert model[0].weight.abs().min() > 0
        assert type(model[0]) is nn.Conv2d

    def test_noise_changes_the_result_and_classically_does_not(self, converted, small_net):
        module, x = converted()
        with torch.no_grad():
            plain = small_net()(x)
            assert (module(x) - plain).abs().max() > 1e-3
            with module.classically():
                assert torch.equal(module(x), plain)
            assert (module(x) - plain).abs().max() > 1e-3

    def test_training_mode_is_kept(self, small_net):
        for training in (True, False):
            assert convert(small_net().train(training)).training is training

    def test_training_mode_of_parts_is_kept(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
        model[1].eval()
        module = convert(model)
        assert not module.network[1].training
        module.network[1].eval()
        module.calibrate(torch.rand(4, 3))
        assert not module.network[1].training


class TestChoice:
    @pytest.mark.parametrize(
        ("settings", "quantum"),
        [
            ({}, ["0", "3"]),
            ({"include": ["0"]}, ["0"]),
            ({"exclude": ["0"]}, ["3"]),
            ({"include": ["?"], "exclude": ["3*"]}, ["0"]),
        ],
    )
    def test_include_and_exclude(self, converted, settings, quantum):
        assert list(converted(**settings)[0].layers) == quantum

    def test_nothing_to_convert_is_refused(self, small_net):
        for model, settings in [
            (nn.Sequential(nn.ReLU()), {}),
            (small_net(), {"include": ["features.*"]}),
            (small_net(), {"exclude": ["*"]}),
        ]:
            with pytest.raises(InvalidInputError, match="No Conv1d, Conv2d or Linear"):
                convert(model, **settings)

    def test_quantum_networks_are_refused(self, converted):
        module, _ = converted()
        for model in (module, module.network):
            with pytest.raises(InvalidInputError, match="already quantum-executed"):
                convert(model)

    def test_a_bare_layer_and_subclasses(self):
        class Doubled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        assert list(convert(nn.Linear(3, 2)).layers) == [""]
        module = convert(nn.Sequential(Doubled(3, 3), nn.Linear(3, 2)))
        assert list(module.layers) == ["1"]
        assert type(module.network[0]) is Doubled

    def test_shared_module_is_converted_once(self, random_tensor):
        shared = nn.Linear(3, 3).double()
        model = nn.Sequential(shared, nn.Tanh(), shared)
        x = random_tensor(5, 3)
        module = convert(model, x, device="ideal")
        assert list(module.layers) == ["0"]
        assert module.network[0] is module.network[2]
        torch.testing.assert_close(module(x), model(x))
        assert conversion_report(module, x).products == 2 * 9

    def test_hooks_and_other_attributes_stay(self, random_tensor):
        model = nn.Sequential(nn.Linear(3, 2)).double()
        model[0].note = "kept"
        seen = []
        model[0].register_forward_hook(lambda layer, args, out: seen.append(out.shape))
        module = convert(model, random_tensor(2, 3))
        seen.clear()
        module(random_tensor(2, 3))
        assert seen == [(2, 2)]
        assert module.network[0].note == "kept"


class TestReport:
    def test_lenet5_costs_416520_products(self):
        module = convert(network("lenet5"), images("lenet5"))
        report = conversion_report(module, images("lenet5", 1))
        # 6·25·28² less the zero padding, 16·150·10², and the linear layers' weights.
        padded = 6 * (5 * 28 - 6) ** 2
        linear = 400 * 120 + 120 * 84 + 84 * 10
        assert report.products == padded + 16 * 150 * 100 + linear
        assert all(layer.quantum for layer in report.layers)
        # The design counts padding too.
        assert report.products + 6 * (25 * 28**2) - padded == 416_520

    def test_batch_norm_is_classical(self):
        module = convert(network("vgg16_bn"), images("vgg16_bn"))
        report = conversion_report(module, images("vgg16_bn", 1))
        kinds = {layer.kind: layer.quantum for layer in report.layers}
        assert kinds == {"Conv2d": True, "BatchNorm2d": False, "Linear": True}
        for layer in report.layers:
            assert (layer.products is None) is not layer.quantum
            assert (layer.scale is None) is not layer.quantum

    def test_is_shown_as_a_table(self, converted):
        module, x = converted()
        console = Console(file=io.StringIO(), width=120)
        console.print(conversion_report(module, x))
        text = console.file.getvalue()
        assert "ibm_nairobi" in text
        assert f"{conversion_report(module, x).products:,} products" in text

    def test_layers_of_millions_of_weights_fit_80_columns(self):
        layer = LayerReport("features.40", "Conv2d", 2_359_808, True, 37_756_928, 10.25, 0.005)
        console = Console(file=io.StringIO(), width=80)
        console.print(ConversionReport("ibm_nairobi", (layer,)))
        row = "features.40 Conv2d 2,359,808 quantum 37,756,928 10.25 0.50%"
        assert row.split() in [line.split() for line in console.file.getvalue().splitlines()]

    def test_sequences_cost_a_product_a_token(self):
        x = torch.rand(2, 5, 4)
        assert conversion_report(convert(nn.Linear(4, 3), x), x).products == 5 * 4 * 3


class TestCalibration:
    def test_maximum_over_the_data_in_any_batches(self, converted, small_net):
        module, x = converted()
        model = small_net().requires_grad_(False)
        expected = [float(x.abs().max()), float(model[:3](x).abs().max())]
        for batch_size in (1, 3, 256):
            module.calibrate(x, batch_size=batch_size)
            found = [layer.input_scale for layer in module.layers.values()]
            assert found == pytest.approx(expected, rel=1e-6)
            assert all(layer.clipped == 0 for layer in module.layers.values())

    @pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0])
    def test_percentile(self, percentile):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn((500, 40), generator=generator)
        module = convert(nn.Linear(40, 2), x, percentile=percentile)
        (layer,) = module.layers.values()
        expected = np.percentile(x.abs().numpy(), percentile)
        assert layer.input_scale == pytest.approx(expected, abs=2 * float(x.abs().max()) / 2**14)
        assert layer.clipped == pytest.approx(1 - percentile / 100, abs=2e-3)
        assert module.clipping(x) == {"": layer.clipped}
        assert module.clipping(2 * x)[""] > layer.clipped

    def test_asked_for_clipping_does_not_warn(self):
        x = torch.rand((200, 10), generator=torch.Generator().manual_seed(0))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ClippingWarning)
            for percentile in (100, 99.9, 80):
                convert(nn.Linear(10, 2), x, percentile=percentile)

    def test_more_clipping_than_asked_for_warns(self):
        """A network whose activations grow while it is calibrated."""

        class Growing(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear, self.calls = nn.Linear(10, 2), 0

            def forward(self, x):
                self.calls += 1
                return self.linear(x * self.calls)

        x = torch.rand((50, 10), generator=torch.Generator().manual_seed(0))
        with pytest.warns(ClippingWarning, match=r"% of the activations of linear"):
            convert(Growing(), x)

    @pytest.mark.parametrize("percentile", [0, -1, 100.1])
    def test_bad_percentile(self, converted, percentile):
        with pytest.raises(InvalidInputError, match="percentile"):
            converted(percentile=percentile)

    def test_no_data(self, small_net):
        with pytest.raises(InvalidInputError, match="at least one"):
            convert(small_net(), torch.empty(0, 1, 4, 4))

    def test_arrays_of_any_type_are_taken(self, small_net):
        x = np.arange(32).reshape(2, 1, 4, 4)
        for data in (x.astype(np.float32), x.astype(np.uint8)):
            module = convert(small_net(), data)
            assert next(iter(module.layers.values())).input_scale == 31

    @pytest.mark.slow
    def test_percentile_of_very_many_activations(self):
        x = torch.zeros(1, 5_000, 8_000)  # 40 million, 1.25 % of them spread over (0, 1]
        x[0, :, :100] = torch.linspace(0.01, 1, 100)
        module = convert(nn.Linear(8_000, 1), x, percentile=99.0)
        assert module.network.input_scale == pytest.approx(0.2, abs=0.02)


class TestShotNoise:
    def test_seeds_reproduce(self, converted):
        results = [converted(shots=20, seed=seed)[0] for seed in (5, 5, 6)]
        _, x = converted()
        first, again, other = (module(x) for module in results)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert not torch.equal(results[0](x), first)

    def test_copies_and_pickles_continue_the_same_stream(self, converted):
        module, x = converted(shots=20)
        module(x)
        twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
        expected = module(x)
        assert all(torch.equal(twin(x), expected) for twin in twins)

    def test_frozen_draw_repeats_and_ends(self, converted):
        module, x = converted(shots=20)
        with module.frozen_draw():
            first = module(x)
            assert torch.equal(module(x), first)
            with module.frozen_draw():
                assert torch.equal(module(x), first)
            assert torch.equal(module(x), first)
        assert not torch.equal(module(x), first)

    def test_frozen_draw_ends_after_an_error(self, converted):
        module, x = converted(shots=20)
        module(x)
        with pytest.raises(RuntimeError), module.frozen_draw():
            module(x[:, :, :2, :2])
        assert not torch.equal(module(x), module(x))

    def test_unseeded_sources_differ(self):
        x = torch.zeros(8)
        assert not torch.equal(NoiseSource().normal_like(x), NoiseSource().normal_like(x))

    @pytest.mark.parametrize("shots", [None, 100])
    def test_batching_does_not_change_expectations(self, converted, shots):
        module, x = converted()
        whole = module(x)
        parts = torch.cat([module(part) for part in x.split(1)])
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


class TestAveragedDraws:
    def test_variance_falls_as_one_over_draws(self, converted):
        module, x = converted(shots=30)
        x = x[:1].expand(4000, 1, 4, 4)
        with torch.no_grad():
            single = module(x).var(0)
            for draws in (4, 16):
                ratio = single / AveragedDraws(module, draws)(x).var(0)
                # Each variance is known to 2.2 %: five standard deviations of the ratio.
                np.testing.assert_allclose(ratio.numpy(), draws, rtol=0.16)

    def test_frozen_draws_differ_inside_and_repeat_across_calls(self, converted):
        module, x = converted(shots=30)
        averaged = AveragedDraws(module, 3)
        inside = []
        module.register_forward_hook(lambda part, args, out: inside.append(out))
        with module.frozen_draw():
            first = averaged(x)
            assert torch.equal(averaged(x), first)
        assert len(inside) == 6
        assert not torch.equal(inside[0], inside[1])
        assert all(torch.equal(a, b) for a, b in zip(inside[:3], inside[3:], strict=True))
        torch.testing.assert_close(first, torch.stack(inside[:3]).mean(0))
        assert not torch.equal(averaged(x), first)

    def test_probabilities_average_after_the_softmax(self, converted):
        module, x = converted(shots=30)
        outputs = []
        module.register_forward_hook(lambda part, args, out: outputs.append(out.softmax(-1)))
        result = AveragedDraws(module, 5, of="probabilities")(x)
        torch.testing.assert_close(result.exp(), torch.stack(outputs).mean(0))

    def test_without_shots_it_is_the_module(self, converted):
        module, x = converted()
        torch.testing.assert_close(AveragedDraws(module, 3)(x), module(x))

    @pytest.mark.parametrize(("draws", "of"), [(0, "logits"), (2, "votes")])
    def test_bad_settings(self, converted, draws, of):
        with pytest.raises(InvalidInputError):
            AveragedDraws(converted()[0], draws, of=of)


class TestOddNetworks:
    def test_encoder_layers_run_their_circuits_in_eval_mode_too(self):
        """Torch has a fused path for these that reads the weights and calls no layer."""
        torch.manual_seed(0)
        encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
        x = torch.rand(4, 5, 16)
        ideal = convert(encoder, x, device="ideal")
        noisy = convert(encoder, x, device="ibm_nairobi", readout="raw")
        with torch.no_grad():
            assert torch.allclose(ideal(x), encoder(x), atol=1e-5)
            without_gradients = noisy(x)
        assert not torch.allclose(without_gradients, encoder(x), atol=1e-3)
        assert torch.allclose(without_gradients, noisy(x), atol=1e-6)

    def test_layers_that_calibration_misses_are_named(self):
        class Auxiliary(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 2)

            def forward(self, x):
                return self.used(x)

        with pytest.warns(UserWarning, match="unused"):
            convert(Auxiliary(), torch.rand(3, 4))

    @pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10, 1e30])
    def test_weights_of_any_size(self, size):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        with torch.no_grad():
            network[0].weight.mul_(size)
        x = torch.rand(16, 6)
        noisy = convert(network, x, shots=4096, seed=0)(x)
        assert torch.isfinite(noisy).all()
        assert (noisy - network(x)).abs().max() < 0.2 * network(x).abs().max()


def test_weights_that_are_computed_in_every_pass_are_refused():
    pruned = nn.Linear(4, 3)
    prune.l1_unstructured(pruned, "weight", 0.5)
    for layer in (pruned, nn.utils.spectral_norm(nn.Linear(4, 3))):
        with pytest.raises(
            InvalidInputError, match=r"weight of '0' is not a parameter.*prune.remove"
        ):
            convert(nn.Sequential(layer))
    prune.remove(pruned, "weight")
    assert convert(nn.Sequential(pruned), torch.rand(5, 4)).products(torch.rand(1, 4)) == {"0": 12}


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


def test_tokens_stay_whole_numbers():
    tokens = torch.arange(30).reshape(6, 5) % 10
    assert convert(Tokens(), tokens, device="ideal")(tokens).shape == (6, 3)


class OneVector(nn.Module):
    """A layer whose input has no batch."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(5, 4)
        self.condition = nn.Parameter(torch.rand(5, generator=torch.Generator().manual_seed(0)))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x * self.gate(self.condition))


def test_a_layer_without_a_batch_is_calibrated():
    network, x = OneVector(), torch.rand((6, 4), generator=torch.Generator().manual_seed(1))
    module = convert(network, x, device="ideal")
    torch.testing.assert_close(module(x), network(x), rtol=1e-4, atol=1e-4)


def test_half_precision_is_calibrated_as_single():
    """65,504, the largest float16, is less than the activations of a channel."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1352, 3))
    x = torch.rand((256, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    single = convert(network, x, percentile=90)
    half = convert(copy.deepcopy(network).half(), x.half(), percentile=90)
    for expected, found in zip(single.layers.values(), half.layers.values(), strict=True):
        assert found.clipped == pytest.approx(expected.clipped, abs=5e-3)
        assert found.input_spread == pytest.approx(expected.input_spread, rel=1e-2)
        assert found.input_squares == pytest.approx(expected.input_squares, rel=1e-2, abs=1e-3)


def test_a_network_converted_in_inference_mode_runs_and_trains(converted):
    with torch.inference_mode():
        module, x = converted()
        assert module(x).shape == (4, 3)
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_other_types_are_cast_wherever_images_are_taken(converted):
    module, x = converted()
    assert module.products(x.float()) == module.products(x)
    assert module.clipping(x.float()) == module.clipping(x.float().double())


def test_a_report_prints_as_a_table(converted):
    module, x = converted()
    text = str(conversion_report(module, x))
    assert "Conv2d" in text
    assert "products per image" in text
