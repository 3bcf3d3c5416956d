"""Small runs of training, tuning and search, small files of MNIST, and a small suite."""

import gzip
import struct

import numpy as np
import pytest
import torch
from art_fixtures import images, network, plain

from qnad_art import convert
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.datasets.dataset import Dataset
from qnad_art.models.architectures import build_model
from qnad_art.search.settings import SearchSettings
from qnad_art.search.study import search
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.standard import TrainSettings, train

SUITE = """
name: tiny
data: {name: digits, images: 20, train_images: 300}
models: {small: {architecture: lenet5, epochs: 5}}
defences: {none: none, noisy: {name: inherent, shots: 64}}
attacks: [fgsm, {name: pgd, max_iter: 3}]
eps: [0.1]
rungs: [transfer, white-box, black-box]
protocol: {draws: 2, selection_draws: 2, audit_images: 8, audit_steps: 4, resamples: 100}
audit: false
keep_examples: true
"""


TRAINING = TrainSettings(epochs=3, learning_rate=0.05, batch_size=16, device="cpu")


def blobs(n=48, channels=3, size=32, seed=0):
    """Images whose mean brightness tells their class, under noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = (0.3 + 0.4 * y)[:, None, None, None] + rng.uniform(-0.3, 0.3, (n, channels, size, size))
    return Dataset("blobs", x.astype(np.float32).clip(0, 1), y, ("dark", "bright"), "Made up.")


def lenet(seed=0):
    return build_model("lenet5", num_classes=2, in_channels=3, image_size=32, seed=seed)


class Interrupted(Exception):
    """Stands for a power cut after an epoch."""


def stop_after(epoch):
    def on_epoch(result):
        if result.epoch == epoch:
            raise Interrupted

    return on_epoch


def interrupt_training(path, settings=TRAINING, data=None, epoch=1):
    """Leave a checkpoint of a run that stopped after an epoch."""
    with pytest.raises(Interrupted):
        train(lenet(), data or blobs(), settings, checkpoint=path, on_epoch=stop_after(epoch))


TUNING = {"epochs": 2, "batch_size": 64, "attack_steps": 1, "epsilon": 0.1}


def data(count: int = 150) -> tuple[torch.Tensor, torch.Tensor]:
    train = images("digits", "train")
    return torch.tensor(train.x[:count]), torch.tensor(train.y[:count])


def executed(shots: int | None = None, **settings):
    return convert(network(), data()[0], device="ibm_nairobi", shots=shots, seed=0, **settings)


def tuning(shots: int | None = None, **settings) -> AdversarialLoop:
    settings = {**TUNING, "learning_rate": 0.1, "refresh": 1, **settings}
    return Tuned(**settings).loop(executed(shots), *data())


SEARCH = SearchSettings(
    0.1,
    trials=3,
    epochs=1,
    learning_rate=(0.1, 0.3),
    attack_steps=2,
    tuning={"attack_steps": 1, "batch_size": 50},
)


def searched(settings=SEARCH, **options):
    some = images("digits", "train").take(80)
    return search(plain(), some.x, some.y, settings, **options)


def idx(array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.tobytes()


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def write_mnist(folder, images=None, labels=None, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if suffix else bytes
    for part, data in (
        ("images-idx3", images or idx(PIXELS)),
        ("labels-idx1", labels or idx(LABELS)),
    ):
        (folder / f"t10k-{part}-ubyte{suffix}").write_bytes(pack(data))
