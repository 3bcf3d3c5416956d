"""``RESULTS.md``: what the records say, in tables and sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qnad_art.benchmark.report.chart import percent, points
from qnad_art.benchmark.report.tables import accuracies, duration
from qnad_art.benchmark.statistics import NEAR_ZERO
from qnad_art.errors import ArtifactError
from qnad_art.files import write_bytes
from qnad_art.paper.claims import claims
from qnad_art.paper.claims_text import attack_choice_section, claims_section
from qnad_art.paper.evidence import Evidence, networks, trained_again
from qnad_art.paper.figures import charts
from qnad_art.paper.markdown import folded, markdown, ratio_text, sign
from qnad_art.paper.marks import LEGEND, audited, marked, worst
from qnad_art.paper.record import Recorded, read_records
from qnad_art.paper.side_by_side import comparisons, views
from qnad_art.paper.table import PUBLISHED, UNIFORM, Row, table_rows
from qnad_art.paper.training import training_pairs

FIGURES = Path("results", "figures")


def write_page(folder: Path) -> Path:
    """Write ``RESULTS.md`` and its figures from the records in ``folder/results``.

    Raises:
        ArtifactError: there are no records, or one is damaged.
    """
    from qnad_art.benchmark.report.matplotlib_figures import picture

    records = read_records(folder / "results")
    if not records:
        raise ArtifactError(f"{folder}/results has no records: make some with `qnad paper`.")
    for evidence in networks(records):
        for chart in charts(evidence):
            write_bytes(folder / FIGURES / f"{chart.key}.png", picture(chart, "png"))
    path = folder / "RESULTS.md"
    write_bytes(path, page(records).encode())
    return path


def page(records: Sequence[Recorded]) -> str:
    """The text of the page; the same records give the same text."""
    found, again = networks(records), trained_again(records)
    made = claims(found, again)
    sections = [
        _head(records),
        _baselines(found),
        _table(table_rows(found)),
        _plans(records),
        claims_section(made),
        attack_choice_section(made),
        _training(records),
        _side_by_side(records),
        _figures(found),
        _all(records),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(records: Sequence[Recorded]) -> str:
    rows = []
    for record in records:
        header = record.header
        images = max((r.images for r in record.results if r.cell.kind != "audit"), default=0)
        measured = f"{len(record.results):,} of {header.cells:,}"
        if header.failures:
            measured += f", {len(header.failures)} failed"
        rows.append(
            (
                str(header.place),
                f"{header.data['name']}, {images:,} images",
                measured,
                _audited(record),
                duration(record.seconds),
                header.machine,
                header.recorded,
                f"`{header.command}`",
            )
        )
    columns = (
        "suite", "test images", "cells", "audited", "core time of the cells", "machine",
        "recorded (UTC)", "command",
    )  # fmt: skip
    provenance = dict.fromkeys(record.header.data["provenance"] for record in records)
    versions = dict.fromkeys(
        ", ".join(f"{n} {v}" for n, v in sorted(record.header.versions.items()))
        for record in records
    )
    jpeg = any("JPEG" in text for text in provenance)
    return "\n\n".join(
        [
            "# Results",
            "Generated from the records in `results/` by `qnad results`; not to be edited. "
            "Accuracies are in %, with 95 % intervals in brackets (Wilson for one noise draw, "
            "two-level bootstrap for several); differences are in percentage points and paired "
            "by image. Circuits run on the compiled simulator (exact; `qnad verify` checks it "
            "against Aer), on the exact expectation unless shots are given.",
            "## What was run",
            "*quick* and *reduced* suites take fewer test images than there are, *full* ones all. "
            "*audited*: whether the gates of the audit were run; what was not audited may be "
            "unreliable unseen. The core time leaves out training, tuning and the attacks that "
            "are transferred.",
            markdown(columns, rows),
            "Data: " + " ".join(provenance),
            *(
                [
                    "**The CIFAR images are JPEG copies**: accuracies are not comparable with "
                    "those on the original pixels, the paper's among them, to the point."
                ]
                if jpeg
                else []
            ),
            *(f"Versions: {text}." for text in versions),
        ]
    )


def _audited(record: Recorded) -> str:
    seen, defences = len(audited(record.results)), len(record.header.defences)
    return "yes" if seen == defences else f"{seen} of {defences} defences" if seen else "**no**"


def _baselines(found: Sequence[Evidence]) -> str:
    rows = []
    for evidence in found:
        published = PUBLISHED.get(evidence.network)
        rows.append(
            (
                published.title if published else evidence.network,
                f"{evidence.images:,}",
                percent(evidence.accuracy(evidence.plain)),
                f"{100 * published.clean:.1f}" if published else "",
            )
        )
    columns = ("network", "images", "plain network", "the paper's")
    return "## Baselines\n\nClean accuracy in %.\n\n" + markdown(columns, rows) if rows else ""


def _table(rows: Sequence[Row]) -> str:
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
    limits = ", ".join(f"{p.title} {100 * p.clean_cost:g}" for p in PUBLISHED.values())
    return "\n\n".join(
        [
            "## Table I",
            "At the ε of the paper's Table I (0.3; 6/255). *the paper*: its relative improvement "
            "(for inherent noise alone the most that it states); it prints no settings of PGD, so "
            "a weak and a strong one stand against the same figure. *plain*, *defended*, *gain*: "
            "rung transfer, the paper's setting. *relative improvement* is (defended − plain) / "
            f"plain, and not meaningful where plain is below {100 * NEAR_ZERO:g} %. *above the "
            "paper's*: defended against (1 + the paper's) · plain, which needs no ratio. "
            f"*within the limit*: of the points of clean accuracy that may be lost ({limits}), by "
            "the point value, as the project's target is; the interval stands beside it. "
            "*at worst*: each network at the lower of the rungs transfer and adaptive (gradients "
            "through the defence), the figure that counts: the adaptive attack does not try the "
            "transferred examples. *uniform, best fraction*: chosen on these images, so "
            "optimistic; named are the fraction that is best under transfer, which the clean "
            "accuracy is that of, and the one that is best at worst. Both *above*: yes or no "
            f"where the interval leaves out zero, else unclear. {LEGEND}",
            markdown(columns, shown),
            _cells(rows),
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


def _plans(records: Sequence[Recorded]) -> str:
    """How the plans of the hardened folders were made; records of before do not say."""
    known = {name: made for record in records for name, made in record.header.plans.items()}
    if not known:
        return ""
    rows = [
        (name, ", ".join(f"{setting} {value}" for setting, value in sorted(made.items())))
        for name, made in known.items()
    ]
    intro = "The crosstalk of these folders was made by `qnad harden`, on training images alone."
    return "\n\n".join(["## Tuned with", intro, markdown(("folder", "settings"), rows)])


def _training(records: Sequence[Recorded]) -> str:
    rows = [
        (
            str(pair.record.header.place),
            *map(marked, (pair.alone, pair.together), pair.marks),
            str(pair.condition),
            percent(pair.first.accuracy),
            percent(pair.second.accuracy),
            points(pair.gain),
            sign(pair.gain),
        )
        for pair in training_pairs(records)
    ]
    if not rows:
        return ""
    columns = (
        "suite", "training alone", "with QNAD", "under", "alone", "with QNAD", "difference",
        "QNAD adds",
    )  # fmt: skip
    return (
        "## Adversarial training, alone and with QNAD\n\nThe same trained weights, clean and on "
        f"the rung adaptive; with QNAD less alone, paired by image. {LEGEND}\n\n"
        + markdown(columns, rows)
    )


def _side_by_side(records: Sequence[Recorded]) -> str:
    parts = []
    for comparison in comparisons(records):
        columns = ["defence", "clean", *comparison.rungs, "lowest, less the plain network's"]
        rows = [
            (
                marked(standing.defence, standing.mark),
                percent(standing.clean),
                *(percent(standing.left.get(rung)) for rung in comparison.rungs),
                "" if standing.gain is None else points(standing.gain),
            )
            for standing in comparison.standings
        ]
        title = f"{comparison.record.header.place}: {comparison.title}, {comparison.budget}"
        parts += [f"**{title}**", markdown(columns, rows)]
    intro = (
        "Every comparative suite at its largest ε. On each rung the accuracy under the attack of "
        "the suite that leaves the least, the most robust defence first (by its lowest accuracy). "
        "The last column compares each network at its own lowest, paired by image. "
        f"{LEGEND} All ε are below, under *Every accuracy*."
    )
    return "\n\n".join(["## Defences side by side", intro, *parts]) if parts else ""


def _figures(found: Sequence[Evidence]) -> str:
    images = [
        f"![{chart.alternative}]({(FIGURES / chart.key).as_posix()}.png)\n\n{chart.caption}"
        for evidence in found
        for chart in charts(evidence)
    ]
    intro = (
        "Against ε: the paper's figures 3, 5, 7, 9, 11 and 13; against the fraction: 4, 6, 8, 10, "
        "12 and 14. The upper rows are its setting, transfer."
    )
    return "\n\n".join(["## Figures", intro, *images]) if images else ""


def _all(records: Sequence[Recorded]) -> str:
    """Every accuracy and every failed gate, suite by suite."""
    parts = ["## Every accuracy"]
    for record in records:
        header, tables = record.header, []
        for view in views(record):
            tables.append(f"**{view.title}**")
            for table in accuracies(view):
                tables += [f"{table.caption}.", markdown(table.columns, table.rows)]
            failed = [
                f"- {d}: {', '.join(view.failed(d))}" for d in view.defences if view.failed(d)
            ]
            if failed:
                tables += ["Unreliable, gates of the audit that failed:", "\n".join(failed)]
        failures = [f"- {cell}: {reason}" for cell, reason in header.failures]
        if failures:
            tables += ["Cells that could not be measured:", "\n".join(failures)]
        parts.append(folded(f"{header.place}", "\n\n".join(tables)))
    return "\n\n".join(parts)
