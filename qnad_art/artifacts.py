"""Tensors with a JSON header in one safetensors file: versioned, checksummed, never pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qnad_art.errors import ArtifactError
from qnad_art.files import write_bytes

FORMAT_VERSION = 1


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, kind: str, header: Mapping[str, Any]
) -> None:
    """Write an artifact of ``kind``, atomically; ``header`` must be plain JSON."""
    from safetensors.torch import save

    # Clones, because safetensors refuses tensors that share memory (tied weights).
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {
        "kind": kind,
        "format_version": str(FORMAT_VERSION),
        "header": json.dumps(header, sort_keys=True, allow_nan=False),
    }
    metadata["sha256"] = _digest(metadata["header"], stored)
    write_bytes(path, save(stored, metadata=metadata))


def load_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises:
        ArtifactError: missing, damaged, of another kind or of a newer format version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ArtifactError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is not a readable safetensors file: {error}.") from error
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
    text = metadata.get("header", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise ArtifactError(f"{path} fails its checksum: it was damaged or edited.")
    header = json.loads(text)
    return tensors, header


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
