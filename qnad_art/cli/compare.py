"""``qnad compare``: two runs, or two defences of one run, on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.table import Table

    from qnad_art.benchmark.comparison import Comparison, Pair


def compare(
    run: Annotated[Path, typer.Argument(help="Run folder A.")],
    other: Annotated[Path | None, typer.Argument(help="Run folder B.")] = None,
    defence: Annotated[
        str | None, typer.Option(help="Defence A, to compare two defences of one run.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Defence B.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Paired differences in accuracy, B less A, with 95 % intervals.

    Give two runs, or one run with --defence A --against B.
    """
    from qnad_art.benchmark.comparison import compare_defences, compare_runs
    from qnad_art.benchmark.store import Run

    if (other is None) != (defence is not None) or (defence is None) != (against is None):
        raise InvalidInputError(
            "Give two run folders, or one with --defence A and --against B; not both."
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
    console.print(_table(found, names))
    _print_unmatched(console, found)


def _table(found: Comparison, names: tuple[str, str]) -> Table:
    from rich.table import Table

    from qnad_art.benchmark.report.chart import percent, points

    of_one_run = {pair.a.cell.defence for pair in found.pairs} == {names[0]}
    table = Table(
        title=f"A: {names[0]}\nB: {names[1]}",
        title_justify="left",
        caption=(
            "Accuracy in % with 95 % intervals; B - A in percentage points, paired by image. Of 20 "
            "intervals about one misses the truth by chance."
        ),
        caption_justify="left",
    )
    table.add_column("cell", overflow="fold")
    for heading in ("A", "B", "B - A"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for pair in found.pairs:
        cell = pair.a.cell.model_copy(update={"defence": ""}) if of_one_run else pair.a.cell
        remarks = [pair.verdict, *(f"unreliable, {name}" for name in pair.unreliable)]
        table.add_row(
            str(cell),
            percent(pair.a.accuracy),
            percent(pair.b.accuracy),
            points(pair.difference),
            "\n".join(remarks),
        )
    return table


def _print_unmatched(console: Console, found: Comparison) -> None:
    if found.unmatched:
        console.print(f"\nNot compared ({len(found.unmatched)}):")
    for entry in found.unmatched:
        console.print(f"  {entry.side}: {entry.cell}: {entry.reason}", soft_wrap=True)


def _json(found: Comparison, names: tuple[str, str]) -> str:
    import json

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
    return {
        "a": {"cell": pair.a.cell.model_dump(), "accuracy": pair.a.accuracy.model_dump()},
        "b": {"cell": pair.b.cell.model_dump(), "accuracy": pair.b.accuracy.model_dump()},
        "difference": pair.difference.model_dump(),
        "verdict": pair.verdict,
        "unreliable": list(pair.unreliable),
    }
