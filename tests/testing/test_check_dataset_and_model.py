"""The suites for data sets and networks: built-ins pass, and each fault is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qnad_art.datasets.dataset import digits
from qnad_art.models.architectures import LENET5, Architecture, ModelEntry
from qnad_art.testing import check_dataset, check_model, checks_for


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("data set", "digits"),
        pytest.param("data set", "mnist5k", marks=pytest.mark.slow),
        ("model", "lenet5"),
        ("model", "alexnet"),
        pytest.param("model", "vgg16_bn", marks=pytest.mark.slow),
        pytest.param("model", "resnet18", marks=pytest.mark.slow),
    ],
)
def test_built_in_conforms(kind, name):
    {"data set": check_dataset, "model": check_model}[kind](name)


def test_checks_run_one_by_one():
    for _, check in checks_for("data set"):
        check(digits)
    for _, check in checks_for("model"):
        check(LENET5)


def unnamed(source):
    return replace(digits(source), provenance="")


def renamed_classes(source):
    data = digits(source)
    return data if source.split == "train" else replace(data, classes=tuple("abcdefghij"))


def one_split(source):
    return digits(replace(source, split="train"))


def without_nines(source):
    data = digits(source)
    return data.subset(np.nonzero(data.y != 9)[0]) if source.split == "train" else data


def shuffled(source):
    data = digits(source)
    return data.subset(np.random.default_rng().permutation(len(data)))


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (lambda source: (digits(source).x, digits(source).y), "both_splits", "type tuple"),
        (lambda source: digits(source).subset([]), "both_splits", "no image"),
        (unnamed, "both_splits", "provenance"),
        (renamed_classes, "splits_go_together", "classes"),
        (one_split, "splits_go_together", "the same images in both"),
        (without_nines, "splits_go_together", "no training image of [9]"),
        (shuffled, "is_the_same_at_every_call", "another order"),
    ],
)
def test_fault_of_a_data_set_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_dataset(faulty)
    message = str(caught.value)
    assert f"check {check}" in message
    assert words in message
    assert "; expected" in message


class Net(nn.Module):
    def __init__(self, architecture: Architecture):
        super().__init__()
        self.layer = nn.Linear(64, architecture.num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class OneHead(Net):
    def __init__(self, architecture):
        super().__init__(replace(architecture, num_classes=10))


class MixesImages(Net):
    def forward(self, x):
        return super().forward(x - x.mean(0) if len(x) > 1 else x)


class FixedWeights(Net):
    def __init__(self, architecture):
        super().__init__(architecture)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)


class HiddenWeights(Net):
    def __init__(self, architecture):
        super().__init__(architecture)
        self.hidden = torch.randn(64)

    def forward(self, x):
        return super().forward(x.flatten(1) * self.hidden)


class UnseededWeights(Net):
    def __init__(self, architecture):
        super().__init__(architecture)
        noise = np.random.default_rng().normal(size=(architecture.num_classes, 64))
        self.layer.weight.data += torch.as_tensor(noise, dtype=torch.float32)


class WithoutModules(Net):
    """Computes with its layer's weights, past its forward."""

    def forward(self, x):
        return 2 * nn.functional.linear(x.flatten(1), self.layer.weight, self.layer.bias)


def entry(network, **training):
    usual = Architecture("net", num_classes=10, in_channels=1, image_size=8)
    return ModelEntry(usual, network, {"epochs": 1, "learning_rate": 0.1, **training})


def test_small_network_conforms():
    check_model(entry(Net))


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (Net, "is_a_model_entry", "expected one of type ModelEntry"),
        (entry(Net, epoch=1), "is_a_model_entry", "epoch"),
        (entry(OneHead), "maps_images_to_logits", "(2, 3)"),
        (entry(MixesImages), "images_do_not_mix", "other images in the batch"),
        (entry(UnseededWeights), "weights_follow_the_seed", "from the same seed"),
        (entry(FixedWeights), "weights_follow_the_seed", "from two seeds"),
        (entry(HiddenWeights), "weights_carry_over", "load_state_dict"),
        (
            entry(WithoutModules),
            "runs_as_circuits",
            "['layer'], which the forward pass never calls",
        ),
    ],
)
def test_fault_of_a_network_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_model(faulty)
    message = str(caught.value)
    assert f"check {check}" in message
    assert words in message
    assert "expected" in message
