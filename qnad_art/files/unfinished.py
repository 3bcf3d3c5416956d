"""What a stopped quickstart leaves behind, so that the same command goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import checksum, read_json, write_json
from qnad_art.version import __version__


class Unfinished:
    """Checkpoints and figures of a run, in a folder that is there only until the run is finished.

    Args:
        folder: to keep it in; ``None`` keeps nothing.
        settings: of the run, plain data; what runs of other settings left is not looked at.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        name = f".unfinished-{checksum([settings, __version__])[:12]}"
        self._folder = None if folder is None else folder / name

    def checkpoint(self, name: str) -> dict[str, Any]:
        """Settings ``checkpoint`` and ``resume`` of a training, or none."""
        if self._folder is None:
            return {}
        path = self._folder / f"{name}.safetensors"
        return {"checkpoint": path, "resume": path.exists()}

    def figures(self) -> list[Any]:
        """What :meth:`keep` was given last."""
        path = None if self._folder is None else self._folder / "figures.json"
        figures = [] if path is None or not path.exists() else read_json(path)
        if not isinstance(figures, list):
            raise ArtifactError(f"{path} is damaged: remove it and run again.")
        return figures

    def keep(self, figures: list[Any]) -> None:
        """Replace the figures, plain data."""
        if self._folder is not None:
            write_json(self._folder / "figures.json", figures)

    def remove(self) -> None:
        """The run is finished."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
