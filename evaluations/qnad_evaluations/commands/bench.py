"""``qnad bench``: performance as ratios, measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.table import Table

    from qnad_art.cli.screen import Console
    from qnad_evaluations.performance.measurements import Settings
    from qnad_evaluations.performance.results import Recorded, Result

RECORDED = Path("evaluations/performance/results.json")


def bench(
    measurements: Annotated[
        list[str] | None,
        typer.Argument(
            help="startup, inference, memory, attack, tuning, conversion, products, growth, suite; "
            "default: all."
        ),
    ] = None,
    models: Annotated[list[str] | None, typer.Option(help="Networks; default: all four.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Images a batch.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32, bfloat16; both.")] = None,
    on: Annotated[list[str] | None, typer.Option(help="cpu, cuda; what is there.")] = None,
    rounds: Annotated[int | None, typer.Option(help="At most; default 20, quick 5.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds a case, once it has three rounds; 30, quick 5.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One network, small sizes.")] = False,
    device: Annotated[str, typer.Option(help="Quantum device.")] = "ibm_nairobi",
    output: Annotated[
        Path | None, typer.Option(help="JSON file that results are written to, beside others.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Page between whose markers the output's tables go.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit status 1 where a ratio is worse than recorded.")
    ] = False,
    recorded: Annotated[Path, typer.Option(help="What --check compares with.")] = RECORDED,
) -> None:
    """Measure speed and memory as ratios, side by side, in interleaved rounds."""
    from qnad_art.cli.screen import Console
    from qnad_evaluations.performance.measurements import PRECISIONS, Settings

    settings = Settings(
        models=tuple(models) if models else None,
        batches=tuple(batch) if batch else None,
        precisions=tuple(precision) if precision else PRECISIONS,  # type: ignore[arg-type]
        places=tuple(on) if on else None,
        rounds=(5 if quick else 20) if rounds is None else rounds,
        budget=(5.0 if quick else 30.0) if budget is None else budget,
        quick=quick,
        device=device,
    )
    if table is not None and output is None:
        raise InvalidInputError("--table shows what --output keeps: give both.")
    before = _read(recorded) if check else {}
    console = Console(highlight=True)
    results = _measure(console, measurements, settings, output)
    if table is not None and output is not None:
        from qnad_evaluations.performance.tables import write_tables

        write_tables(table, _read(output))
        console.print(f"Written: {table}")
    if check:
        _check(console, results, before)


def _measure(
    console: Console, names: Sequence[str] | None, settings: Settings, output: Path | None
) -> list[Result]:
    """All results, shown and written as they come."""
    from qnad_art.errors import UnknownNameError
    from qnad_evaluations.performance.measurements import TITLES, measure
    from qnad_evaluations.performance.results import environment, merged, write_results

    chosen = list(names or TITLES)
    for name in chosen:
        if name not in TITLES:
            raise UnknownNameError("measurement", name, TITLES)
    everything: list[Result] = []
    here = environment()
    for number, name in enumerate(chosen, 1):
        found: list[Result] = []
        with console.status(f"{name} ({number} of {len(chosen)})") as status:
            for result in measure(name, settings):
                found.append(result)
                shown = ", ".join(map(str, (*result.case.values(), result.variant)))
                status.update(f"{name} ({number} of {len(chosen)}), done: {shown}")
                if output is not None:
                    kept = _read(output) if output.exists() else {}
                    write_results(output, merged(kept, [result], here))
        _show(console, TITLES[name], found)
        everything += found
    return everything


def _show(console: Console, title: str, results: Sequence[Result]) -> None:
    from qnad_evaluations.performance.tables import rows

    headings, cells = rows(results)
    table = _table(title, headings)
    for row in cells:
        table.add_row(*(cell.replace("**", "") for cell in row))
    console.print(table)


def _table(title: str, headings: Sequence[str]) -> Table:
    """A table that breaks lines in a narrow terminal, and cuts nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _check(console: Console, results: Sequence[Result], before: dict[str, Recorded]) -> None:
    """Print every comparison; leave with status 1 if one is slower."""
    from rich.text import Text

    from qnad_evaluations.performance.check import compare

    comparisons = compare(results, before)
    headings = ("measurement", "case", "recorded", "now", "noise", "")
    table = _table("Ratios against the recorded ones", headings)
    for found in comparisons:
        now, there = found.now, found.recorded
        assert now.ratio is not None
        assert there.ratio is not None
        table.add_row(
            now.measurement,
            ", ".join(map(str, (*now.case.values(), now.variant))),
            f"{there.ratio.median:.3f}",
            f"{now.ratio.median:.3f}",
            f"± {found.noise:.3f}",
            Text("SLOWER", "bold red") if found.slower else Text("as recorded", "green"),
        )
    console.print(table)
    slower = sum(found.slower for found in comparisons)
    console.print(f"{slower} of {len(comparisons)} ratios are worse than recorded, beyond noise.")
    raise typer.Exit(1 if slower else 0)


def _read(path: Path) -> dict[str, Recorded]:
    from qnad_evaluations.performance.results import read_results

    return read_results(path)
