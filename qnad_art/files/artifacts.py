"""Tensors and metadata in one safetensors file, with a version and a checksum, never pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import parse_json, plain, write_bytes

FORMAT_VERSION = 1
_CHECKSUM = "sha256"


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, kind: str, header: Mapping[str, Any]
) -> None:
    """Write an artifact of ``kind`` atomically; ``header`` must be plain JSON."""
    metadata = {
        "kind": kind,
        "format_version": str(FORMAT_VERSION),
        "header": json.dumps(header, sort_keys=True, allow_nan=False, default=plain),
    }
    write_tensors(path, tensors, metadata)


def load_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that :func:`save_tensors` wrote.

    Raises:
        ArtifactError: the file is missing, damaged, of another kind or of a newer version.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("kind") != kind:
        raise ArtifactError(
            f"{path} holds {metadata.get('kind', 'foreign data')!r}, not a {kind!r} of qnad_art."
        )
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise ArtifactError(
            f"{path} has format version {version}; this qnad_art reads {FORMAT_VERSION}. "
            "Update qnad_art, or save the artifact again."
        )
    if not intact(tensors, metadata):
        raise ArtifactError(f"{path} fails its checksum: it was damaged or edited.")
    header = parse_json(metadata["header"], path)
    if not isinstance(header, dict):
        raise ArtifactError(f"{path} has no valid header: save it again.")
    return tensors, header


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace ``path`` atomically by a safetensors file; a checksum is added to the metadata."""
    from safetensors.torch import save

    # Cloned, because safetensors refuses tensors that share memory (tied weights).
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    sealed = {**metadata, _CHECKSUM: _digest(_covered(metadata), stored)}
    write_bytes(path, save(stored, metadata=sealed))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of any safetensors file, without checking who wrote it.

    Raises:
        ArtifactError: the file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.") from error
    except (OSError, SafetensorError) as error:
        if Path(path).is_dir():
            raise ArtifactError(f"{path} is a folder; give a safetensors file.") from error
        raise ArtifactError(f"{path} is not an intact safetensors file: {error}.") from error


def intact(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether tensors and metadata are as :func:`write_tensors` wrote them."""
    return metadata.get(_CHECKSUM) == _digest(_covered(metadata), tensors)


def sealed(metadata: Mapping[str, str]) -> bool:
    """Whether there is a checksum; weights of early versions and of other programs have none."""
    return _CHECKSUM in metadata


def _covered(metadata: Mapping[str, str]) -> str:
    """The metadata that the checksum covers: the header or, without a header, all of it."""
    if "header" in metadata:
        return metadata["header"]
    rest = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    return json.dumps(rest, sort_keys=True)


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
