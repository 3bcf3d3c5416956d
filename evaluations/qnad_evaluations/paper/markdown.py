"""Markdown for the page of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qnad_art.benchmark.records import Interval
from qnad_art.benchmark.report.chart import MINUS
from qnad_art.benchmark.statistics.intervals import RelativeImprovement


def markdown(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [list(columns)]
    lines += [
        ["---"] * len(lines[0]),
        *([text.replace("|", "\\|") for text in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(title: str, text: str) -> str:
    """Text that opens on a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def sign(gain: Interval | None) -> str:
    """Whether the interval of a gain leaves out zero."""
    if gain is None:
        return ""
    return "yes" if gain.low > 0 else "**no**" if gain.high < 0 else "unclear"


def ratio_text(ratio: RelativeImprovement) -> str:
    """A relative improvement, or that it means nothing."""
    if ratio.improvement is None or not ratio.meaningful:
        return "not meaningful"
    return f"{100 * ratio.improvement:+.1f} %".replace("-", MINUS)
