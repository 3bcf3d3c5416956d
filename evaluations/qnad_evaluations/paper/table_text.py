"""The section of the page on Table I."""

from __future__ import annotations

from collections.abc import Sequence

from qnad_art.benchmark.report.chart import percent, points
from qnad_art.benchmark.statistics.intervals import NEAR_ZERO
from qnad_evaluations.paper.markdown import markdown, ratio_text, sign
from qnad_evaluations.paper.marks import LEGEND, marked, worst
from qnad_evaluations.paper.table import PUBLISHED, UNIFORM, Row

POINTS = {
    "tuned, again": "*tuned, again*: the same network tuned a second time, with settings that its "
    "record has.",
    "tuned, mild": "*tuned, mild*: tuned with less weight on adversarial images, to lose less "
    "clean accuracy.",
}
"""What tells the operating points apart; their settings are under *Tuned with*."""


def table_section(rows: Sequence[Row]) -> str:
    """Every row, and how the six cells stand for tuned crosstalk."""
    if not rows:
        return ""
    shown = []
    for row in rows:
        within = {None: "", True: "yes", False: "**no**"}[row.within_limit]
        shown.append(
            (
                PUBLISHED[row.network].title,
                row.attack,
                marked(_method(row), row.mark),
                f"{100 * row.published:+.2f} %",
                percent(row.plain),
                percent(row.defended),
                points(row.gain),
                ratio_text(row.ratio),
                sign(row.above),
                points(row.clean_cost),
                within,
                points(row.worst),
                sign(row.worst),
            )
        )
    columns = (
        "network", "attack", "method", "the paper", "plain", "defended", "gain",
        "relative improvement", "above the paper's", "clean accuracy lost", "within the limit",
        "gain, at worst", "above plain, at worst",
    )  # fmt: skip
    limits = ", ".join(f"{100 * p.clean_cost:g} ({p.title})" for p in PUBLISHED.values())
    return "\n\n".join(
        [
            "## Table I",
            "At the ε of the paper's Table I (0.3; 6/255).",
            "\n".join(
                [
                    "- *the paper*: its relative improvement, for inherent noise alone the most "
                    "that it states. It prints no settings of PGD, so a weak and a strong one "
                    "stand against the same figure.",
                    "- *uniform, best fraction*: chosen on these images, so optimistic. Named are "
                    "the one that is best under transfer, whose clean accuracy is shown, and the "
                    "one that is best at worst.",
                    "- *plain*, *defended*, *gain*: rung transfer, the paper's setting.",
                    "- *relative improvement*: (defended − plain) / plain; not meaningful where "
                    f"plain is below {100 * NEAR_ZERO:g} %.",
                    "- *above the paper's*: defended against (1 + the paper's) · plain, which "
                    "needs no ratio.",
                    "- *within the limit*: whether the point value of the clean accuracy lost is "
                    f"within {limits} points; the interval stands beside it.",
                    "- *at worst*: under the rungs transfer and adaptive (gradients through the "
                    "defence) together, each network on each image under the one that breaks it "
                    "(on the plain network both are the same attack). This is the figure that "
                    "counts.",
                    "- Both *above*: yes or no where the interval leaves out zero, else unclear.",
                    f"- {LEGEND}",
                ]
            ),
            markdown(columns, shown),
            _cells(rows),
            *(text for label, text in POINTS.items() if any(r.method == label for r in rows)),
        ]
    )


def _method(row: Row) -> str:
    """With the fractions that were chosen, as the suite names them."""
    if row.method != UNIFORM:
        return row.method
    return f"{row.method} ({row.defence}; at worst {row.hardest or 'not measured'})"


def _cells(rows: Sequence[Row]) -> str:
    """How the six cells of Table I stand for tuned crosstalk."""
    lines = []
    for attack in dict.fromkeys(row.attack for row in rows):
        mine = [row for row in rows if row.attack == attack and row.tuned]
        above = {row.network for row in mine if row.above.low > 0}
        held = {row.network for row in mine if row.worst is not None and row.worst.low > 0}
        kept = {row.network for row in mine if row.within_limit}
        together = {
            row.network
            for row in mine
            if row.above.low > 0
            and row.within_limit
            and row.worst is not None
            and row.worst.low > 0
        }
        lines.append(
            f"- {marked(attack, worst(row.mark for row in mine))}, tuned, of "
            f"{len({row.network for row in mine})} networks: significantly "
            f"above the paper's in {len(above)}, within the limit of clean accuracy in "
            f"{len(kept)} (by the point value), significantly above the plain network at worst in "
            f"{len(held)}; all three at one operating point in {len(together)}."
        )
    return "\n".join(lines)
