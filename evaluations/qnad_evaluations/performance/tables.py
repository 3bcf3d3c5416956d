"""Markdown tables of recorded results, written between markers into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import write_bytes
from qnad_evaluations.performance.measurements import TITLES
from qnad_evaluations.performance.results import Recorded, Result

BEGIN = "<!-- qnad bench: begin. Written by `qnad bench --table`; do not edit. -->"
END = "<!-- qnad bench: end -->"


def write_tables(page: Path, recorded: Mapping[str, Recorded]) -> None:
    """Replace what stands between the markers of ``page`` by the tables.

    Raises:
        ArtifactError: the page is missing, or its markers are.
    """
    try:
        text = page.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
    except FileNotFoundError as error:
        raise ArtifactError(f"{page} does not exist; it must hold the two markers.") from error
    except ValueError as error:
        raise ArtifactError(f"{page} must hold {BEGIN!r} and {END!r}, once each.") from error
    write_bytes(page, f"{before}{BEGIN}\n\n{markdown(recorded)}\n{END}{after}".encode())


def markdown(recorded: Mapping[str, Recorded]) -> str:
    """All measurements, each with its title and environment."""
    return "\n".join(
        f"### {TITLES.get(name, name)} (`qnad bench {name}`)\n\n{_place(part)}\n\n"
        f"{_table(part.results)}\n"
        for name, part in recorded.items()
    )


def rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of every result; what no result has is left out."""
    cases = list(dict.fromkeys(name for result in results for name in result.case))
    columns = {
        **{name: [str(result.case.get(name, "")) for result in results] for name in cases},
        "": [result.variant for result in results],
        "median": [_value(result) for result in results],
        "ratio": [_number(r.ratio.median) if r.ratio else "" for r in results],
        "quartiles": [
            f"{_number(r.ratio.low)}–{_number(r.ratio.high)}" if r.ratio else "" for r in results
        ],
        "rounds": [str(r.ratio.rounds) if r.ratio else "" for r in results],
        "target": [_target(result) for result in results],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def _table(results: Sequence[Result]) -> str:
    headings, cells = rows(results)
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _place(part: Recorded) -> str:
    return ", ".join(f"{name} {value}" for name, value in part.environment.items())


def _target(result: Result) -> str:
    if result.target is None:
        return ""
    return f"{result.target:g} {'met' if result.met else '**missed**'}"


def _value(result: Result) -> str:
    """Seconds in a fitting unit; counts with separators."""
    if result.unit == "s":
        for size, name in ((1.0, "s"), (1e-3, "ms")):
            if result.value >= size:
                return f"{result.value / size:.3g} {name}"
        return f"{result.value / 1e-6:.3g} µs"
    return f"{result.value:,.0f} {result.unit}"


def _number(value: float) -> str:
    if value < 0.01:
        return f"{value:.1e}"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
