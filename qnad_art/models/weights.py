"""Weights of networks as safetensors files, which are never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.files import artifacts
from qnad_art.files.atomic import parse_json
from qnad_art.models.architectures import (
    Architecture,
    Model,
    ModelEntry,
    architecture_of,
    build_model,
    is_code,
    model_entry,
    model_names,
)

_FORMAT = "weights.1"


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the weights of a :func:`build_model` network to a safetensors file atomically.

    ``card`` (plain JSON, such as data, settings and accuracies) is stored in the file together
    with the architecture. ``dtype`` (for example ``torch.float16``) converts the floating-point
    weights. Raises :class:`~qnad_art.errors.InvalidInputError` if weights are not finite in that
    type.
    """
    tensors: dict[str, Tensor] = dict(model.state_dict())
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.to(dtype or tensor.dtype)
            if not tensors[name].isfinite().all():
                raise InvalidInputError(
                    f"{name} is not finite as {tensors[name].dtype}; save it as torch.float32, or "
                    "train again with a lower learning rate."
                )
    metadata = {
        "qnad_art": _FORMAT,
        "architecture": json.dumps(asdict(architecture_of(model))),
        "card": json.dumps(dict(card or {}), allow_nan=False),
    }
    artifacts.write_tensors(Path(path), tensors, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read weights into ``model``, with the model's dtype and on its device.

    The file must hold exactly the model's tensors. Otherwise
    :class:`~qnad_art.errors.ArtifactError` is raised and the model does not change.
    """
    install_tensors(model, read_tensors(path)[0], path)


def load_model(path: str | Path, name: Model | None = None, **sizes: int) -> nn.Module:
    """Build the network that a weights file describes, with its weights, in ``eval`` mode.

    ``name`` and ``sizes`` are arguments of :func:`build_model`, needed if the file does not state
    its architecture or names code. Raises ArtifactError for a damaged file or one that contradicts
    ``name``.
    """
    tensors, metadata = read_tensors(path)
    stored = _stored_architecture(metadata, path, name)
    if stored is None and name is None:
        raise ArtifactError(
            f"{path} does not state its architecture; give one of: {', '.join(model_names())}."
        )
    if stored is not None:
        sizes = {field: size for field, size in asdict(stored).items() if field != "name"}
    if isinstance(name, ModelEntry):
        model = build_model(name, **sizes)
    elif stored is not None:
        model = build_for(tensors, path, **asdict(stored))
    else:
        model = build_model(str(name), **sizes)
    install_tensors(model, tensors, path)
    return model.eval()


def build_for(tensors: Mapping[str, Tensor], path: str | Path, **architecture: Any) -> nn.Module:
    """:func:`build_model`, after checking that ``tensors``, read from ``path``, fit the network.

    A small file that names a huge network is refused before memory is allocated.
    """
    with torch.device("meta"):
        _require_fit(build_model(**architecture), tensors, path)
    return build_model(**architecture)


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the card of a weights file; it is empty if none was saved."""
    return parse_object(read_tensors(path)[1].get("card", "{}"), path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of any safetensors file, or raise ArtifactError.

    If the file has a checksum of qnad_art, the checksum is verified.
    """
    tensors, metadata = artifacts.read_tensors(path)
    ours = "qnad_art" in metadata and artifacts.sealed(metadata)
    if ours and not artifacts.intact(tensors, metadata):
        raise ArtifactError(f"{path} fails its checksum: it was damaged or edited.")
    return tensors, metadata


def install_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy ``tensors``, read from ``path``, into ``model`` after checking all of them."""
    _require_fit(model, tensors, path)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ArtifactError(f"{path} does not fit: {name} holds values that are not finite.")
    model.load_state_dict(dict(tensors))


def _require_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise ArtifactError unless the tensors have the names and shapes of the model's."""
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    problems += [f"{name} does not belong to the model" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        shape, expected = tuple(tensors[name].shape), tuple(own[name].shape)
        if shape != expected:
            problems.append(f"{name} has shape {shape} instead of {expected}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ArtifactError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(sorted(problems)[:3])}{more}. "
            "Build the model with the classes, channels and image size the weights were made for."
        )


def _stored_architecture(
    metadata: Mapping[str, str], path: str | Path, asked: Model | None
) -> Architecture | None:
    """Return the architecture that a file states, after checking that it fits ``asked``."""
    if "qnad_art" not in metadata:
        return None
    if metadata["qnad_art"] != _FORMAT:
        raise ArtifactError(f"{path} is {metadata['qnad_art']!r}, not {_FORMAT!r}; train again.")
    try:
        architecture = Architecture(**parse_object(metadata.get("architecture", ""), path))
        # A user's own entry is not registered under its name.
        if not isinstance(asked, ModelEntry):
            model_entry(architecture.name)
    except (TypeError, InvalidInputError, UnknownNameError) as error:
        raise ArtifactError(f"{path} names an invalid architecture: {error}") from error
    stored = architecture.name
    own = asked.usual.name if isinstance(asked, ModelEntry) else asked
    # Code may have moved since then; the tensors are checked in any case.
    if own not in (None, stored) and not (is_code(stored) and isinstance(asked, ModelEntry)):
        raise ArtifactError(f"{path} holds {stored}, not {own}; leave the name out.")
    return architecture


def parse_object(text: str, path: str | Path) -> dict[str, Any]:
    """Parse one JSON object from the metadata of ``path``, or raise ArtifactError."""
    value = parse_json(text, f"The metadata of {path}, damaged,")
    if not isinstance(value, dict):
        raise ArtifactError(f"The metadata of {path} are damaged: {text[:60]!r} is not an object.")
    return value
