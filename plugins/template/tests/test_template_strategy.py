"""What your strategy is for, in your own words; check_strategy sees to what all must do."""

import numpy as np
import pytest
import torch
from torch import nn

from qnad_art import QNAD
from qnad_art.crosstalk import build_strategy
from qnad_art.errors import InvalidInputError
from qnad_art.testing import check_strategy


@pytest.fixture(scope="module")
def classifier():
    from art.estimators.classification import PyTorchClassifier

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10)
        )
    return PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return random.random((20, 1, 8, 8), dtype=np.float32), np.arange(20) % 10


def test_it_conforms():
    check_strategy("heaviest")


def test_the_largest_weights_get_crosstalk_and_no_others(classifier, data):
    defence = QNAD(classifier, device="ibm_nairobi", strategy="heaviest", fraction=0.2, pairs=2)
    defence.fit(*data)
    weights = {
        name: layer.weight.detach().numpy()
        for name, layer in classifier.model.named_modules()
        if hasattr(layer, "weight")
    }
    everything = np.concatenate([weight.ravel() for weight in weights.values()])
    smallest = np.sort(np.abs(everything))[-round(0.2 * everything.size)]
    plans = {name.removeprefix("_model."): plan for name, plan in defence.plan.layers.items()}
    for name, plan in plans.items():
        expected = np.abs(weights[name]) >= smallest
        words = defence.plan.words(plan).numpy()  # the others may meet those of a neighbour
        np.testing.assert_array_equal(words, expected)
        pairs = np.where(words, plan.pairs.numpy(), 0)
        assert set(np.unique(np.abs(pairs))) <= {0, 2}
        for row in pairs.reshape(len(pairs), -1):
            assert abs(row.sum()) <= 2  # they cancel, but for an odd one


@pytest.mark.parametrize("pairs", [0, -1, 128, 1.5, True])
def test_pairs_that_cannot_be_injected_are_refused(pairs):
    with pytest.raises(InvalidInputError, match="whole number from 1 to 127"):
        build_strategy("heaviest", pairs=pairs)
