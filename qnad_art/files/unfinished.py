"""Intermediate results of the quickstart, from which the same command continues."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import checksum, read_json, write_json
from qnad_art.version import __version__


class Unfinished:
    """Checkpoints and figures of a run, in a folder that exists until the run is finished.

    Args:
        folder: parent folder; with ``None`` nothing is kept.
        settings: the settings of the run as plain data. Results of other settings are ignored.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        name = f".unfinished-{checksum([settings, __version__])[:12]}"
        self._folder = None if folder is None else folder / name

    def checkpoint(self, name: str) -> dict[str, Any]:
        """The settings ``checkpoint`` and ``resume`` of a training; empty if nothing is kept."""
        if self._folder is None:
            return {}
        path = self._folder / f"{name}.safetensors"
        return {"checkpoint": path, "resume": path.exists()}

    def figures(self) -> list[Any]:
        """The figures that were last passed to :meth:`keep`."""
        path = None if self._folder is None else self._folder / "figures.json"
        figures = [] if path is None or not path.exists() else read_json(path)
        if not isinstance(figures, list):
            raise ArtifactError(f"{path} is damaged: remove it and run again.")
        return figures

    def keep(self, figures: list[Any]) -> None:
        """Replace the kept figures, which must be plain data."""
        if self._folder is not None:
            write_json(self._folder / "figures.json", figures)

    def remove(self) -> None:
        """Delete everything, because the run is finished."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
