"""Image files: idx files, and folders or zips of pictures. Damaged files are refused."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from qnad_art.errors import DatasetError

ByteArray = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None] | None
Read = Callable[[str], bytes]

LARGEST_FILE = 1 << 30
"""Largest unpacked idx file in bytes (MNIST has 47 million)."""
LARGEST_IMAGE = 1 << 26
"""Limit on pixels per image and on bytes per file; small files can unpack to large images."""
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, RuntimeError, BadZipFile, zlib.error)
"""Exceptions that reading damaged files raises."""

_IMAGE = re.compile(r"(train|test)/[^/]+/[^/.][^/]*\.(?i:jpe?g|png)")


class Images(NamedTuple):
    """Pixels (N×H×W×C), labels (N, from 0), class names, and whether any file is a JPEG."""

    pixels: ByteArray
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    jpeg: bool


def read_idx(path: Path, dimensions: int) -> ByteArray:
    """Read an idx file of unsigned bytes after checking its magic number and its length."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack(f">{1 + dimensions}I", file.read(4 + 4 * dimensions))
            data = file.read(min(math.prod(shape), LARGEST_FILE) + 1)
    except (*DAMAGED, struct.error) as error:
        raise DatasetError(f"{path} is damaged ({error}); fetch it again.") from error
    # In the magic number, 8 means unsigned bytes.
    if magic != 0x800 + dimensions or len(data) != math.prod(shape):
        raise DatasetError(
            f"{path} is not an idx file of bytes of shape {tuple(shape)}: its magic number or "
            "length is wrong; fetch it again."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_images(path: Path, split: str, progress: Progress) -> Images:
    """Read one split of a folder or zip of ``split/class/*.jpg|png``; nothing is unpacked.

    ``progress(done, total)`` is called from time to time. Raises
    :class:`~qnad_art.errors.DatasetError` if an image is damaged, too large or of another shape.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.glob("*/*/*")]
        return _assemble(path, names, lambda name: (path / name).read_bytes(), split, progress)
    try:
        archive = ZipFile(path)
    except DAMAGED as error:
        raise DatasetError(f"{path} is neither a folder nor an intact zip: {error}.") from error

    def read(name: str) -> bytes:
        size = archive.getinfo(name).file_size
        if size > LARGEST_IMAGE:
            raise ValueError(f"{size:,} bytes are too many for an image")
        return archive.read(name)

    with archive:
        return _assemble(path, archive.namelist(), read, split, progress)


def _assemble(path: Path, names: list[str], read: Read, split: str, progress: Progress) -> Images:
    """Decode the images of one split, sorted by name, and label them by their folders."""
    images = [name for name in sorted(names) if _IMAGE.fullmatch(name)]
    # Both splits define the classes, so that a label has the same meaning in both.
    classes = sorted({name.split("/")[1] for name in images})
    members = [name for name in images if name.startswith(f"{split}/")]
    if not members:
        raise DatasetError(
            f"{path} holds no {split}/<class>/*.jpg or *.png; arrange the images in this way."
        )
    pixels: list[ByteArray] = []
    for name in members:
        pixels.append(_decode(read, name, path))
        if pixels[-1].shape != pixels[0].shape:
            raise DatasetError(
                f"{name} in {path} has shape {pixels[-1].shape}, {members[0]} {pixels[0].shape}; "
                "all images must have one size and be all grey or all RGB."
            )
        if progress and (len(pixels) % 256 == 0 or len(pixels) == len(members)):
            progress(len(pixels), len(members))
    labels = np.array([classes.index(name.split("/")[1]) for name in members], dtype=np.int64)
    jpeg = any(not name.lower().endswith(".png") for name in members)
    return Images(np.stack(pixels), labels, tuple(classes), jpeg)


def _decode(read: Read, name: str, path: Path) -> ByteArray:
    """Decode one image to H×W×1 (grey) or H×W×3 (all others; transparency is dropped)."""
    try:
        with Image.open(io.BytesIO(read(name))) as image:
            if image.mode[0] in "IF":
                raise ValueError("it has more than 8 bits per channel; convert it to 8")
            if image.width * image.height > LARGEST_IMAGE:
                raise ValueError(f"{image.width}×{image.height} pixels are too many")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name} in {path} cannot be read: {error}.") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]
