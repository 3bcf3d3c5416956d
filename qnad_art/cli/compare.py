"""``qnad compare``: two runs, or two defences of one run, on the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from typer import Argument, Option

from qnad_art.cli.inputs import AsJson
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from qnad_art.benchmark.records import Cell
    from qnad_art.benchmark.report.comparison import Comparison, Pair


def compare(
    run: Annotated[Path, Argument(help="Folder of run A.")],
    other: Annotated[Path | None, Argument(help="Folder of run B.")] = None,
    defence: Annotated[str | None, Option(help="Defence A, if only one run is given.")] = None,
    against: Annotated[str | None, Option(help="Defence B, if only one run is given.")] = None,
    seed: Annotated[int, Option(help="Seed of the bootstrap.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, or two defences of one run, image by image.

    The differences in accuracy (B minus A) are paired by image and have 95 % intervals. Give two
    runs, or one run with --defence A --against B.
    """
    from qnad_art.benchmark.report.comparison import compare_defences, compare_runs
    from qnad_art.benchmark.run.folder import Run

    if (other is None) != (defence is not None) or (defence is None) != (against is None):
        raise InvalidInputError(
            "Give either two run folders, or one run folder with --defence A and --against B."
        )
    results = Run.open(run).results()
    if other is None:
        assert defence is not None
        assert against is not None
        names = defence, against
        found = compare_defences(results, defence, against, seed=seed)
    else:
        names = str(run), str(other)
        found = compare_runs(results, Run.open(other).results(), seed=seed)
    if as_json:
        typer.echo(_json(found, names))
        return
    console = Console()
    if found.pairs:
        console.print(_table(found, names))
    else:
        console.print(f"A: {names[0]}\nB: {names[1]}\nThere is nothing to compare.", soft_wrap=True)
    if found.unmatched:
        console.print(f"\nNot compared ({len(found.unmatched)}):")
    for entry in found.unmatched:
        console.print(f"  {entry.side}: {entry.cell}: {entry.reason}", soft_wrap=True)


def _table(found: Comparison, names: tuple[str, str]) -> Table:
    from qnad_art.benchmark.report.chart import percent, points

    cells = [pair.a.cell for pair in found.pairs]
    if {cell.defence for cell in cells} == {names[0]}:  # of one run, and in the title
        cells = [cell.model_copy(update={"defence": ""}) for cell in cells]
    shared, own = _told_apart(cells)
    table = Table(
        box=SIMPLE_HEAD,  # three columns of numbers fit 60 characters
        pad_edge=False,
        collapse_padding=True,
        title=f"A: {names[0]}\nB: {names[1]}\n{shared}",
        title_justify="left",
        caption=(
            "Accuracy in % with 95 % intervals; B - A in percentage points, paired by image. About "
            "one interval in 20 misses the true value by chance."
        ),
        caption_justify="left",
    )
    table.add_column("cell", overflow="fold", min_width=12)
    for heading in ("A", "B", "B - A"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell, pair in zip(own, found.pairs, strict=True):
        told = [cell, pair.verdict, *(f"unreliable, {name}" for name in pair.unreliable)]
        figures = percent(pair.a.accuracy), percent(pair.b.accuracy), points(pair.difference)
        table.add_row("\n".join(told), *(text.replace(" [", "\n[") for text in figures))
    return table


def _told_apart(cells: Sequence[Cell]) -> tuple[str, list[str]]:
    """Return the parts that all cells share, and for each cell its other parts, as text."""
    parts = [str(cell).split(" · ") for cell in cells]
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    own = [" · ".join(p for p in of_one if p not in shared) or "this one" for of_one in parts]
    return " · ".join(shared), own


def _json(found: Comparison, names: tuple[str, str]) -> str:
    content = {
        "a": names[0],
        "b": names[1],
        "pairs": [_pair(pair) for pair in found.pairs],
        "unmatched": [
            {"side": e.side, "cell": e.cell.model_dump(), "reason": e.reason}
            for e in found.unmatched
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _pair(pair: Pair) -> dict[str, Any]:
    sides = {"a": pair.a, "b": pair.b}
    return {
        **{side: r.model_dump(include={"cell", "accuracy"}) for side, r in sides.items()},
        "difference": pair.difference.model_dump(),
        "verdict": pair.verdict,
        "unreliable": list(pair.unreliable),
    }
