import hashlib
from pathlib import Path

import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent

import qnad_art.pretrained
from qnad_art.datasets.dataset import load_dataset
from qnad_art.errors import UnknownNameError
from qnad_art.pretrained import PRETRAINED, load_pretrained

FOLDER = Path(qnad_art.pretrained.__file__).parent


@pytest.fixture(scope="module")
def shipped():
    return load_pretrained()


@pytest.fixture(scope="module")
def test_images():
    """Held out from the shipped network's training, says its card."""
    return load_dataset("mnist5k", "test").take(200, seed=0)


@pytest.mark.parametrize("name", PRETRAINED)
def test_files_are_small_and_those_of_the_card(name):
    files = [path for path in (FOLDER / name).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 600_000
    hashes = load_pretrained(name).card["sha256"]
    assert set(hashes) == {path.name for path in files} - {"card.json"}
    for path in files:
        if path.name != "card.json":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == hashes[path.name]


def test_the_weights_are_the_same_and_only_crosstalk_differs(shipped):
    plain, hardened = shipped.plain.model, shipped.hardened.module
    for name, value in plain.state_dict().items():
        assert torch.equal(hardened.network.state_dict()[name], value)
    assert hardened.plan.strategy == "tuned"
    assert 0.2 < hardened.plan.achieved <= 0.3


def test_it_holds_where_the_plain_network_falls(shipped, test_images):
    def accuracy(victim, x) -> float:
        return (victim.predict(x).argmax(1) == test_images.y).mean()

    def attacked(victim) -> float:
        attack = ProjectedGradientDescent(
            victim, eps=0.2, eps_step=0.05, max_iter=10, verbose=False
        )
        return accuracy(victim, attack.generate(test_images.x, test_images.y))

    assert accuracy(shipped.plain, test_images.x) > 0.95
    assert accuracy(shipped.hardened, test_images.x) > 0.94
    assert attacked(shipped.plain) < 0.3
    assert attacked(shipped.hardened) > 0.65


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'lenet5-mnist'"):
        load_pretrained("lenet5-mnst")
