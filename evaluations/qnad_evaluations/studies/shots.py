"""What shots cost: clean accuracy by shots a product, percentile of the scales, and allocation.

    python -m qnad_evaluations.studies.shots lenet5.safetensors --data mnist --data-dir DATA \
        --output evaluations/results/shots-lenet5-mnist.json --split validation

Inherent noise only, or the tuned crosstalk of ``--hardened FOLDER`` at the scales that it was tuned
with; no attack. ``--split validation`` takes training images that the
calibration does not use, and names the percentile that is best there; ``--split test`` (default)
reports. The network was trained on the validation images, so there only comparisons count. Both
splits may share one file; every figure is written as soon as it is known, and a second run goes on.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console
from qnad_art.datasets.dataset import Dataset
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_evaluations.studies.book import Book

SPLITS = ("validation", "test")
ALLOCATIONS = ("equal", "margin")


@dataclass(frozen=True)
class Execution:
    """How the products run.

    ``percentile`` is ``None`` for the scales of a hardened network, ``shots`` for the expectation.
    """

    percentile: float | None
    shots: int | None = None
    allocation: str = "equal"

    def __str__(self) -> str:
        noise = "expectation" if self.shots is None else f"{self.shots:,} shots, {self.allocation}"
        return f"{'hardened' if self.percentile is None else f'percentile {self.scale}'}, {noise}"

    @property
    def scale(self) -> str:
        """The percentile as text."""
        return "own" if self.percentile is None else f"{self.percentile:g}"


def main(
    weights: inputs.Weights,
    data: inputs.Data,
    output: Annotated[Path, typer.Option(help="JSON with all figures.")],
    data_dir: inputs.DataDir = None,
    model: inputs.Model = None,
    device: inputs.Device = None,
    shots: Annotated[
        list[int] | None, typer.Option(help="A product, repeatable; default 1024 and 4096.")
    ] = None,
    percentile: Annotated[
        list[float] | None,
        typer.Option(help="Of the activation scales, repeatable; default 100, 99.9, 99.5, 99."),
    ] = None,
    hardened: Annotated[
        Path | None, typer.Option(help="Folder of the network as hardened; no --percentile then.")
    ] = None,
    split: Annotated[str, typer.Option(help="validation (to choose) or test.")] = "test",
    images: Annotated[int, typer.Option(help="Images to measure on.")] = 1000,
    draws: Annotated[int, typer.Option(help="Fresh draws of the shot noise.")] = 3,
    calibration_images: Annotated[int, typer.Option(help="Training images for scales.")] = 512,
) -> None:
    """Measure clean accuracy: plain, exact expectation, and with shots."""
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    console = Console(highlight=False, soft_wrap=True)
    if hardened is not None and percentile:
        raise InvalidInputError("A hardened network has its scales: leave --percentile out.")
    percentiles = percentile or (100.0, 99.9, 99.5, 99.0) if hardened is None else (None,)
    executions = list(_executions(percentiles, shots or (1024, 4096)))
    training = inputs.load_split(console, data, "train", data_dir)
    some = training.take(calibration_images + (images if split == "validation" else 0))
    calibration = some.subset(range(calibration_images))
    judged = some.subset(range(calibration_images, len(some)))
    if split == "test":
        test = inputs.load_split(console, data, "test", data_dir)
        judged = test.take(min(images, len(test)))
    device = device or DEFAULT_DEVICE
    about = {
        "data": data,
        "provenance": training.provenance,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "device": device,
        "images": images,
        "draws": draws,
        "calibration_images": calibration_images,
    }
    plain = inputs.load_classifier(weights, model, training)
    if hardened is not None:
        about["plan"] = hashlib.sha256((hardened / "plan.safetensors").read_bytes()).hexdigest()
    book = Book(output, about, console)
    as_circuits = _as_circuits(plain, calibration, device, hardened)
    _measure(book, split, judged, plain, as_circuits, executions, draws)
    console.print(_table(book, split, executions))
    if split == "validation":
        console.print(_choice(book, executions))


def _executions(percentiles: Sequence[float | None], shots: Sequence[int]) -> Iterator[Execution]:
    """All that is measured, in an order that prepares each network once."""
    for percentile in percentiles:
        yield Execution(percentile)
        for allocation in ALLOCATIONS:
            for count in shots:
                yield Execution(percentile, count, allocation)


def _as_circuits(
    plain: Any, calibration: Dataset, device: str, hardened: Path | None
) -> Callable[[Execution], Any]:
    """Function: the network executed so; networks are kept for the next execution like it."""
    from qnad_art import QuantumExecutedClassifier

    @lru_cache(maxsize=2)
    def network(percentile: float | None, allocation: str) -> Any:
        if allocation == "equal" and hardened is not None:
            executed = QuantumExecutedClassifier.load(hardened)
            for layer in executed.module.layers.values():
                layer.shot_share = None
            return executed
        if allocation == "equal":
            return QuantumExecutedClassifier.from_art(
                plain, calibration.x, device=device, percentile=percentile
            )
        executed = copy.deepcopy(network(percentile, "equal"))
        executed.shots = 1024  # the shares are the same for any number
        executed.allocate_shots(calibration.x)
        return executed

    def execute(execution: Execution) -> Any:
        executed = network(execution.percentile, execution.allocation)
        executed.shots = execution.shots
        return executed

    return execute


def _measure(
    book: Book,
    split: str,
    judged: Dataset,
    plain: Any,
    as_circuits: Callable[[Execution], Any],
    executions: Sequence[Execution],
    draws: int,
) -> None:
    def right(classifier: Any) -> Any:
        return classifier.predict(judged.x).argmax(1) == judged.y

    def executed(execution: Execution) -> Any:
        classifier = as_circuits(execution)
        found = []
        for seed in range(1 if execution.shots is None else draws):
            classifier.reseed(seed)
            found.append(right(classifier))
        return np.stack(found)

    book.measure(f"{split}: plain", lambda: right(plain))
    for execution in executions:
        book.measure(f"{split}: {execution}", partial(executed, execution))


def _table(book: Book, split: str, executions: Sequence[Execution]) -> Table:
    """Accuracy with both intervals, and how far it is below the expectation and below plain."""
    plain = book.figures[f"{split}: plain"]
    about = book.content["about"]
    table = Table(
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=f"Clean accuracy in %, {plain['images']:,} {split} images of {about['data']}",
        caption=f"noise draws: {about['draws']}; ± half of a 95 % interval: of the mean over draws "
        "(Student), and over images (Wilson); below: points below the expectation at the same "
        "percentile, and below plain",
    )
    headings = ("percentile", "shots", "allocation", "accuracy", "± draws", "± images")
    for heading in (*headings, "below exact", "plain"):
        table.add_column(heading, justify="right")
    table.add_row("", "plain", "", *_accuracy(plain))
    for execution in executions:
        figure = book.figures[f"{split}: {execution}"]
        exact = book.figures[f"{split}: {Execution(execution.percentile)}"]
        below = (f"{100 * (base['accuracy'] - figure['accuracy']):.2f}" for base in (exact, plain))
        exactly = execution.shots is None
        noise = ("exact", "") if exactly else (f"{execution.shots:,}", execution.allocation)
        table.add_row(execution.scale, *noise, *_accuracy(figure), *below)
    return table


def _accuracy(figure: dict[str, Any]) -> Iterator[str]:
    """Accuracy and half its intervals over draws (where there are several) and over images."""
    yield f"{100 * figure['accuracy']:.2f}"
    for interval in (figure.get("draws95"), figure["wilson95"]):
        yield "" if interval is None else f"{50 * (interval[1] - interval[0]):.1f}"


def _choice(book: Book, executions: Sequence[Execution]) -> str:
    """For each number of shots and allocation the percentile that is best in validation."""
    lines = []
    noisy = [execution for execution in executions if execution.shots is not None]
    for count, allocation in sorted({(e.shots, e.allocation) for e in noisy}):
        alike = [e for e in noisy if (e.shots, e.allocation) == (count, allocation)]
        # Of two as good, the one where less saturates.
        best = max(
            alike, key=lambda e: (book.figures[f"validation: {e}"]["accuracy"], e.percentile or 0)
        )
        lines.append(f"Best in validation: {best}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
