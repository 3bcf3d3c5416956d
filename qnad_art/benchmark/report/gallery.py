"""Adversarial examples for the report: image, perturbation, and what the network answered."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qnad_art.benchmark.records import Result
from qnad_art.benchmark.report.view import View, condition_of

Arrays = Mapping[str, npt.NDArray[Any]]

IMAGES = 4
"""Number of images shown of a cell: the first ones, whether the attack succeeded or not."""
CELLS = 12
"""Largest number of cells shown of a model, data set and device."""


@dataclass(frozen=True)
class Example:
    """PNG files of an image, its perturbation and their sum, and the network's answer."""

    number: int
    clean: bytes
    perturbation: bytes
    adversarial: bytes
    truth: int
    said: str
    fooled: bool


@dataclass(frozen=True)
class Gallery:
    """Examples of one cell; perturbations are drawn ``amplified`` times as large."""

    title: str
    amplified: int
    examples: tuple[Example, ...]


def galleries(view: View, examples: Callable[[str], Arrays | None]) -> list[Gallery]:
    """Each defence under the strongest attack at the largest budget of each norm and without one.

    Args:
        view: the results.
        examples: returns the arrays kept of the cell with a key, if any: ``x`` (N, C, H, W) in
            [0, 1]; ``x_adv`` of the same shape, or with a first axis of noise draws (the first draw
            is shown); ``y`` (N,); ``predicted`` (draws, N) class indices.
    """
    largest = {budget.norm: budget for budget in view.budgets}  # budgets ascend
    found: list[Gallery] = []
    for budget in (*largest.values(), None):
        for defence in view.defences:
            strongest = view.strongest(defence, budget)
            result = view.of(defence, strongest[0])[0] if strongest else None
            arrays = examples(result.key) if result and len(found) < CELLS else None
            if result is not None and arrays is not None:
                found.append(_gallery(view, result, arrays))
    return found


def _gallery(view: View, result: Result, arrays: Arrays) -> Gallery:
    x, attacked = arrays["x"][:IMAGES], arrays["x_adv"]
    attacked = (attacked[0] if attacked.ndim > arrays["x"].ndim else attacked)[:IMAGES]
    change = attacked - x
    amplified = _factor(float(np.abs(change).max()))
    votes = result.votes.unpack()
    examples = []
    for number in range(len(x)):
        truth, said = int(arrays["y"][number]), arrays["predicted"][:, number]
        classes, counts = np.unique(said, return_counts=True)
        top, times = classes[counts.argmax()], counts.max()
        examples.append(
            Example(
                number,
                _png(x[number]),
                _png(0.5 + amplified * change[number]),
                _png(attacked[number]),
                truth,
                f"{top}" if len(said) == 1 else f"{top} (in {times} of {len(said)} draws)",
                not votes[number],
            )
        )
    title = f"{view.label(result.cell.defence)} · {condition_of(result)}"
    return Gallery(title, amplified, tuple(examples))


def _factor(largest: float) -> int:
    """The largest of 1, 2, 5, 10, … that keeps ``largest`` within half the range of a pixel."""
    steps = (a * 10**b for b in range(4) for a in (1, 2, 5))
    return max((step for step in steps if step * largest <= 0.501), default=1)


def _png(image: npt.NDArray[Any]) -> bytes:
    """Pixels (C, H, W) in [0, 1] as PNG; a single channel is grey."""
    from PIL import Image

    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
