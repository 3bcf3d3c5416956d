"""Figures by name in one JSON file: complete after every figure, continued by a second run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from qnad_art.accuracy import Proportion, package_versions
from qnad_art.errors import ArtifactError, differences
from qnad_art.files.atomic import read_json, write_json

Correct = npt.NDArray[np.bool_]


class Book:
    """The figures of one evaluation.

    Args:
        path: of the JSON file; figures that it holds already are not measured again.
        about: what all figures depend on, as JSON.
        console: for a line a figure.

    Raises:
        ArtifactError: the file is no JSON, or its figures are about something else.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], console: Console) -> None:
        self.path, self.console = path, console
        about = json.loads(json.dumps(about))
        fresh = {"about": about, "figures": {}, "versions": package_versions()}
        self.content: dict[str, Any] = read_json(path) if path.exists() else fresh
        if differing := differences(self.content.get("about", {}), about):
            raise ArtifactError(
                f"{path} is about something else: {differing}. Use its settings, or write to "
                "another file."
            )

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """By name: accuracy in [0, 1], its intervals, images, seconds."""
        figures: dict[str, dict[str, Any]] = self.content["figures"]
        return figures

    def measure(self, name: str, correct: Callable[[], Correct]) -> None:
        """Measure a figure unless it is known.

        Args:
            name: of the figure.
            correct: gives whether each image is classified right, (images,), or for several draws
                of the noise (draws, images).
        """
        if name in self.figures:
            return
        start = time.perf_counter()
        found = _figure(np.atleast_2d(correct()))
        self.figures[name] = {**found, "seconds": round(time.perf_counter() - start, 1)}
        write_json(self.path, self.content)
        self.console.print(self._line(name))

    def print(self) -> None:
        """All figures, a line each."""
        for name in self.figures:
            self.console.print(self._line(name))

    def _line(self, name: str) -> str:
        figure = self.figures[name]
        low, high = (100 * bound for bound in figure["wilson95"])
        return (
            f"{name:55} {100 * figure['accuracy']:6.2f} %  ({low:.1f} to {high:.1f}, "
            f"{figure['images']:,} images)"
        )


def _figure(correct: Correct) -> dict[str, Any]:
    """Mean accuracy of (draws, images), Wilson's interval over images, Student's over draws."""
    draws = correct.mean(1)
    proportion = Proportion(round(float(correct.mean(0).sum())), correct.shape[1])
    figure = {**proportion.as_dict(), "accuracy": float(draws.mean())}
    if len(draws) > 1:
        figure |= {"draws": draws.tolist(), "draws95": _interval(draws.tolist())}
    return figure


def _interval(values: Sequence[float]) -> list[float]:
    """Two-sided 95 % interval of the mean, from Student's distribution."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return [float(np.mean(values) - half), float(np.mean(values) + half)]
