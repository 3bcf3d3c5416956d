"""The networks, and what their weights files survive and refuse."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.models.architectures import Architecture, architecture_of, build_model
from qnad_art.models.weights import load_model, load_weights, read_card, save_weights


def images(architecture, n=2):
    generator = torch.Generator().manual_seed(0)
    size = architecture.image_size
    return torch.rand((n, architecture.in_channels, size, size), generator=generator)


class TestBuild:
    @pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg16_bn", "resnet18"])
    def test_logits_have_the_architecture_s_shape(self, name):
        model = build_model(name, num_classes=7, image_size=40).eval()
        architecture = architecture_of(model)
        assert architecture == Architecture(name, 7, architecture.in_channels, 40)
        assert model(images(architecture)).shape == (2, 7)

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [("lenet5", 61_706), ("alexnet", 2_472_266), ("vgg16_bn", 14_774_436)],
    )
    def test_usual_networks_have_the_known_number_of_parameters(self, name, parameters):
        assert sum(p.numel() for p in build_model(name).parameters()) == parameters

    @pytest.mark.parametrize("size", [4, 8, 11, 12, 28, 32])
    def test_lenet5_takes_every_size_from_four(self, size):
        model = build_model("lenet5", image_size=size)
        assert model(images(architecture_of(model))).shape == (2, 10)

    @pytest.mark.parametrize(
        ("name", "smallest"), [("lenet5", 4), ("alexnet", 29), ("vgg16_bn", 32)]
    )
    def test_too_small_images_are_refused_with_the_smallest_size(self, name, smallest):
        build_model(name, image_size=smallest)
        with pytest.raises(InvalidInputError, match=f"smallest are {smallest}×{smallest}"):
            build_model(name, image_size=smallest - 1)

    def test_weights_depend_on_the_seed_and_on_nothing_global(self):
        state = torch.get_rng_state()
        first, again, other = (build_model("lenet5", seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first.features[0].weight, again.features[0].weight)
        assert not torch.equal(first.features[0].weight, other.features[0].weight)

    def test_alexnet_standardises_its_input_by_channel(self):
        model = build_model("alexnet").eval()
        x = images(architecture_of(model))
        mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
        std = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
        expected = model.classifier(model.features((x - mean) / std).flatten(1))
        assert torch.allclose(model(x), expected, atol=1e-6)
        assert set(model.state_dict()) == {
            *(f"features.{i}.{part}" for i in (0, 3, 6, 8, 10) for part in ("weight", "bias")),
            *("classifier.weight", "classifier.bias"),
        }

    def test_lenet5_takes_pixels_as_they_are(self):
        model = build_model("lenet5")
        x = images(architecture_of(model))
        assert torch.equal(model(x), model.classifier(model.features(x)))

    def test_wrong_requests(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'alexnet'"):
            build_model("alexnet5")
        with pytest.raises(InvalidInputError, match="num_classes"):
            build_model("lenet5", num_classes=0)
        with pytest.raises(InvalidInputError, match="3 channels"):
            build_model("resnet18", in_channels=1)
        with pytest.raises(InvalidInputError, match="build_model"):
            architecture_of(torch.nn.Linear(1, 1))


class TestWeights:
    @pytest.mark.parametrize("name", ["lenet5", "resnet18"])
    def test_a_file_rebuilds_the_model_and_carries_its_card(self, tmp_path, name):
        path = tmp_path / "w.safetensors"
        model = build_model(name, num_classes=3, image_size=32, seed=4).eval()
        save_weights(model, path, card={"accuracy": 0.5})
        loaded = load_model(path)
        x = images(architecture_of(model))
        assert torch.equal(loaded(x), model(x))
        assert architecture_of(loaded) == architecture_of(model)
        assert not loaded.training
        assert read_card(path) == {"accuracy": 0.5}

    def test_half_precision_files_load_into_the_model_s_own_type(self, tmp_path):
        path = tmp_path / "w.safetensors"
        model = build_model("lenet5", seed=4)
        save_weights(model, path, dtype=torch.float16)
        stored = safetensors.torch.load_file(path)["features.0.weight"]
        target = build_model("lenet5", seed=5)
        load_weights(target, path)
        assert stored.dtype == torch.float16
        assert target.features[0].weight.dtype == torch.float32
        assert torch.equal(target.features[0].weight, model.features[0].weight.half().float())

    def test_weights_too_large_for_the_type_are_not_written(self, tmp_path):
        model = build_model("lenet5")
        with torch.no_grad():
            model.features[0].bias[0] = 1e6
        with pytest.raises(InvalidInputError, match=r"features\.0\.bias is not finite"):
            save_weights(model, tmp_path / "w.safetensors", dtype=torch.float16)
        assert not list(tmp_path.iterdir())

    def test_a_file_without_metadata_needs_the_name(self, tmp_path):
        path = tmp_path / "w.safetensors"
        model = build_model("lenet5", seed=4)
        safetensors.torch.save_file(model.state_dict(), path, {"format": "pt"})
        with pytest.raises(ArtifactError, match=r"give one of: .*lenet5"):
            load_model(path)
        assert torch.equal(load_model(path, "lenet5").features[0].bias, model.features[0].bias)
        assert read_card(path) == {}

    def test_a_contradicting_name_is_refused(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_weights(build_model("lenet5"), path)
        with pytest.raises(ArtifactError, match="holds lenet5, not alexnet"):
            load_model(path, "alexnet")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.pop("features.0.bias"), r"features\.0\.bias is missing"),
            (lambda t: t.update(extra=torch.zeros(1)), "extra does not belong"),
            (lambda t: t.update({"features.0.bias": torch.zeros(5)}), r"\(5,\) instead of \(6,\)"),
            (lambda t: t["features.0.bias"].fill_(np.nan), "not finite"),
        ],
    )
    def test_unfitting_weights_are_refused_and_leave_the_model_alone(
        self, tmp_path, change, message
    ):
        path = tmp_path / "w.safetensors"
        tensors = {
            name: value.clone() for name, value in build_model("lenet5").state_dict().items()
        }
        change(tensors)
        safetensors.torch.save_file(tensors, path)
        target = build_model("lenet5", seed=9)
        before = {name: value.clone() for name, value in target.state_dict().items()}
        with pytest.raises(ArtifactError, match=message):
            load_weights(target, path)
        assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())

    def test_missing_and_corrupt_files(self, tmp_path):
        path = tmp_path / "w.safetensors"
        with pytest.raises(ArtifactError, match="does not exist"):
            load_model(path)
        save_weights(build_model("lenet5"), path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ArtifactError, match="not an intact safetensors"):
            load_model(path)

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({"qnad_art": "weights.9"}, "weights.9"),
            ({"qnad_art": "weights.1", "architecture": "{"}, "damaged"),
            ({"qnad_art": "weights.1", "architecture": "{}"}, "names an invalid architecture"),
            (
                {
                    "qnad_art": "weights.1",
                    "architecture": json.dumps(
                        {"name": "lenet5", "num_classes": 10**9, "in_channels": 1, "image_size": 28}
                    ),
                },
                "num_classes",
            ),
        ],
    )
    def test_unusable_metadata(self, tmp_path, metadata, message):
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file(build_model("lenet5").state_dict(), path, metadata)
        with pytest.raises(ArtifactError, match=message):
            load_model(path)
