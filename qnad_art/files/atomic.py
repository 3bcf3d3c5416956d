"""Atomic writing of files: written under another name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from qnad_art.errors import ArtifactError

LARGEST_JSON = 1 << 26
"""Largest accepted JSON file in bytes: more than valid files need, far less than the memory."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically; parent folders are created if necessary."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not `tempfile`, whose files only their owner can read: here the umask decides.
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):  # its own text names the temporary file
            raise OSError(f"{path} cannot be written: {error.strerror}.") from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON; NaN and infinities are refused."""
    text = json.dumps(
        value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False, default=plain
    )
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; raises :class:`~qnad_art.errors.ArtifactError` if that fails."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
        if len(data) > LARGEST_JSON:
            raise ArtifactError(
                f"{path} is not a file of qnad_art: it has more than {LARGEST_JSON:,} bytes."
            )
        text = data.decode()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}.") from error
    return parse_json(text, path)


def parse_json(text: str | bytes, source: object) -> Any:
    """Parse JSON from ``source``.

    Raises:
        ArtifactError: the text is not JSON, is nested too deeply, or has NaN or infinities.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{source} cannot be read as JSON: {error}.") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def checksum(value: Any) -> str:
    """SHA-256 of plain data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=plain).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Convert NumPy numbers and arrays to plain data, for ``default`` of :func:`json.dumps`."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON cannot represent")


def cache_directory() -> Path:
    """Folder of the computed tables: ``$QNAD_CACHE_DIR`` or the user cache directory."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("QNAD_CACHE_DIR")
    return Path(chosen) if chosen else user_cache_path("qnad-art")
