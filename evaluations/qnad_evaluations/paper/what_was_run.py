"""The sections of the page on the suites: where and when they ran, on what, with which folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from qnad_art.benchmark.report.tables import duration
from qnad_evaluations.paper.budgets import UNKNOWN, tuned_with
from qnad_evaluations.paper.markdown import markdown
from qnad_evaluations.paper.marks import audited
from qnad_evaluations.paper.record import Recorded


def what_was_run(records: Sequence[Recorded]) -> str:
    """Every suite, the data and the versions."""
    columns = (
        "suite", "test images", "cells", "audited", "core time of the cells", "machine",
        "recorded (UTC)", "command",
    )  # fmt: skip
    provenance = dict.fromkeys(record.header.data["provenance"] for record in records)
    jpeg = any("JPEG" in text for text in provenance)
    return "\n\n".join(
        [
            "## What was run",
            "*quick* and *reduced* suites take fewer test images than there are, *full* ones all. "
            "*audited*: whether the gates of the audit were run; what was not audited may be "
            "unreliable unseen. The core time leaves out training, tuning and the attacks that "
            "are transferred.",
            markdown(columns, map(_suite, records)),
            "Data: " + " ".join(provenance),
            *(
                [
                    "**The CIFAR images are JPEG copies**: accuracies are not comparable with "
                    "those on the original pixels, the paper's among them, to the point."
                ]
                if jpeg
                else []
            ),
            _versions(records),
        ]
    )


def _suite(record: Recorded) -> tuple[str, ...]:
    header = record.header
    images = max((r.images for r in record.results if r.cell.kind != "audit"), default=0)
    measured = f"{len(record.results):,} of {header.cells:,}"
    if header.failures:
        measured += f", {len(header.failures)} failed"
    return (
        str(header.place),
        f"{header.data['name']}, {images:,} images",
        measured,
        _audited(record),
        duration(record.seconds),
        header.machine,
        header.recorded,
        f"`{header.command}`",
    )


def _audited(record: Recorded) -> str:
    seen, defences = len(audited(record.results)), len(record.header.defences)
    return "yes" if seen == defences else f"{seen} of {defences} defences" if seen else "**no**"


def _versions(records: Sequence[Recorded]) -> str:
    suites: dict[str, list[str]] = defaultdict(list)
    for record in records:
        text = ", ".join(f"{n} {v}" for n, v in sorted(record.header.versions.items()))
        suites[text].append(str(record.header.place))
    rows = [(text, ", ".join(places)) for text, places in suites.items()]
    return markdown(("versions", "suites"), rows)


def tuned_section(records: Sequence[Recorded]) -> str:
    """How the plans of the hardened folders were made, as far as each record says."""
    suites: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for folder, settings in tuned_with(record).items():
            known = [f"{name} {value}" for name, value in sorted((settings or {}).items())]
            suites[folder, ", ".join(known) or UNKNOWN].append(str(record.header.place))
    if not suites:
        return ""
    intro = (
        "The crosstalk of these folders was made by `qnad harden`, on training images alone. A "
        "folder may have been tuned anew between two suites."
    )
    rows = [(folder, text, ", ".join(places)) for (folder, text), places in suites.items()]
    return "\n\n".join(
        ["## Tuned with", intro, markdown(("folder", "settings", "in the suites"), rows)]
    )
