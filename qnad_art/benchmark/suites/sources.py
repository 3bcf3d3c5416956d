"""Images and plain networks that a run starts from, and the hashes that name them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.benchmark.suites.suite import DataSpec, ModelSpec
from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_art.errors import DatasetError, InvalidInputError
from qnad_art.models.architectures import architecture_of, build_model
from qnad_art.models.code import find_model
from qnad_art.models.weights import load_model


def load_images(spec: DataSpec, data_dir: str | None) -> tuple[Dataset, Dataset]:
    """Training and test images of a suite, as many as it asks for."""
    training, test = (
        load_dataset(spec.name, split, data_dir=data_dir) for split in ("train", "test")
    )
    if training.x.shape[1:] != test.x.shape[1:]:
        raise DatasetError(
            f"{spec.name}: training images are {training.x.shape[1:]}, test images "
            f"{test.x.shape[1:]}; give them the same shape."
        )
    # They are shuffled even if all are taken: folders are sorted by class.
    return (
        training.take(spec.train_images or len(training), spec.seed),
        test.take(spec.images or len(test), spec.seed),
    )


def images_of_seed(spec: DataSpec, training: Dataset, seed: int) -> Dataset:
    """The training images of a suite that defences with a seed are fitted on."""
    return training if spec.fit_images is None else training.take(spec.fit_images, seed)


def load_network(spec: ModelSpec, data: Dataset) -> nn.Module:
    """The network of a file or of the package, for images like those of ``data``, in ``eval`` mode.

    Code that the suite names is run.

    Raises:
        ArtifactError: the file is missing or damaged.
        InvalidInputError: the network is for other images or classes.
    """
    sizes = _sizes(data)
    if spec.pretrained is not None:
        from qnad_art.pretrained import load_pretrained

        network: nn.Module = load_pretrained(spec.pretrained).plain.model
    else:
        named = None if spec.architecture is None else find_model(spec.architecture)
        network = load_model(Path(str(spec.weights)), named, **sizes)
    made_for = architecture_of(network)
    wanted = {name: getattr(made_for, name) for name in sizes}
    if wanted != sizes:
        raise InvalidInputError(
            f"{spec.ready} is for {wanted}, but {data.name} has {sizes}. Use the data that it was "
            "trained on."
        )
    return network.eval()


def untrained_network(spec: ModelSpec, data: Dataset) -> nn.Module:
    """The network that the run trains, before training; code that the suite names is run."""
    return build_model(find_model(str(spec.architecture)), seed=spec.seed, **_sizes(data))


def _sizes(data: Dataset) -> dict[str, int]:
    channels, height, width = data.x.shape[1:]
    if height != width:
        raise InvalidInputError(f"{data.name} has {height}×{width} images; they must be square.")
    return {"num_classes": len(data.classes), "in_channels": channels, "image_size": height}


def classifier_of(network: nn.Module, data: Dataset, *, gpu: bool = False) -> PyTorchClassifier:
    """ART classifier of a network, on the CPU or on the GPU."""
    return PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        data.x.shape[1:],
        len(data.classes),
        clip_values=(0.0, 1.0),
        device_type="gpu" if gpu else "cpu",
    )


def data_hash(data: Dataset) -> str:
    """SHA-256 of images and labels."""
    digest = hashlib.sha256(f"{data.x.shape}{len(data.classes)}".encode())
    digest.update(data.x.tobytes())
    digest.update(data.y.tobytes())
    return digest.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
