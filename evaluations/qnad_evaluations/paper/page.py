"""``RESULTS.md``: what the records say, in tables and sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qnad_art.benchmark.report.chart import percent, points
from qnad_art.errors import ArtifactError
from qnad_art.files.atomic import write_bytes
from qnad_evaluations.paper.budgets import WARNING, budget_text
from qnad_evaluations.paper.claims import claims
from qnad_evaluations.paper.claims_text import attack_choice_section, claims_section
from qnad_evaluations.paper.every import every_accuracy
from qnad_evaluations.paper.evidence import Evidence, networks, trained_again
from qnad_evaluations.paper.figures import charts
from qnad_evaluations.paper.markdown import markdown, sign
from qnad_evaluations.paper.marks import LEGEND, marked
from qnad_evaluations.paper.plans import OVER_PLANS, over_plans
from qnad_evaluations.paper.record import Recorded, read_records
from qnad_evaluations.paper.side_by_side import comparisons
from qnad_evaluations.paper.spread import spread_text
from qnad_evaluations.paper.table import PUBLISHED, table_rows
from qnad_evaluations.paper.table_text import table_section
from qnad_evaluations.paper.training import training_pairs
from qnad_evaluations.paper.what_was_run import tuned_section, what_was_run

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
        what_was_run(records),
        _baselines(found),
        table_section(table_rows(found)),
        tuned_section(records),
        claims_section(made),
        attack_choice_section(made),
        _plans(records),
        _training(records),
        _side_by_side(records),
        _figures(found),
        every_accuracy(records),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(records: Sequence[Recorded]) -> str:
    return "\n\n".join(
        [
            "# Results",
            "Generated from the records in `results/` by `qnad results`; not to be edited. "
            "Accuracies are in %, with 95 % intervals in brackets (Wilson for one noise draw, "
            "two-level bootstrap for several); differences are in percentage points and paired "
            "by image. Circuits run on the compiled simulator (exact; `qnad verify` checks it "
            "against Aer), on the exact expectation unless shots are given, under the crosstalk "
            f"model {_crosstalk_models(records)}. "
            "What counts of several attacks and rungs is what they leave together.",
            spread_text(records),
        ]
    )


def _crosstalk_models(records: Sequence[Recorded]) -> str:
    """Names of the crosstalk models of all quantum results."""
    results = (result for record in records for result in record.results)
    quantum = (r.provenance for r in results if r.provenance.device_hash is not None)
    names = sorted({provenance.crosstalk_model or "paper" for provenance in quantum})
    return " or ".join(f"`{name}`" for name in names) or "of the device"


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


def _plans(records: Sequence[Recorded]) -> str:
    rows = [
        (
            found.network,
            marked(found.defence, found.mark),
            found.under,
            f"{found.plans}",
            f"{100 * found.lowest:.1f} to {100 * found.highest:.1f}",
            percent(found.mean),
            points(found.gain),
            sign(found.gain),
        )
        for found in over_plans(records)
    ]
    if not rows:
        return ""
    columns = (
        "network", "defence", "under", "times", "each", "mean", "less the plain network's", "above",
    )  # fmt: skip
    return (
        f"## {OVER_PLANS}\n\nEach defence made several times with the same settings, every time "
        "on another sample of the training images and with another seed: crosstalk plans, and for "
        "the controls weights. *Each*: from the lowest accuracy of one to the highest. Intervals "
        "are over test images and plans (a plan counts as a draw; what all its images have in "
        f"common follows Student's t). {LEGEND}\n\n" + markdown(columns, rows)
    )


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
        columns = ["defence", "clean", *comparison.rungs, "at worst", "less the plain network's"]
        rows = [
            (
                marked(standing.defence, standing.mark),
                percent(standing.clean),
                *(percent(standing.left.get(rung)) for rung in comparison.rungs),
                percent(standing.worst),
                "" if standing.gain is None else points(standing.gain),
            )
            for standing in comparison.standings
        ]
        title = f"{comparison.record.header.place}: {comparison.title}, {comparison.budget}"
        parts += [f"**{title}**", markdown(columns, rows)]
        budgets = budget_text(
            comparison.record, [standing.defence for standing in comparison.standings]
        )
        parts += [budgets] if budgets else []
    intro = (
        "Every comparative suite at its largest ε. On each rung the accuracy under the attack of "
        "the suite that leaves the least. *At worst*: under all attacks together, on all rungs "
        "but persistent and seed-known (where it counts how often one may ask); an image counts "
        "where none breaks it. With noise that is the most that they leave: in each draw an image "
        "is under the attack that fools the other draws most. The most robust defence at worst "
        "comes first; the last column is paired by image. "
        f"{LEGEND} All ε are below, under *Every accuracy*."
    )
    return "\n\n".join(["## Defences side by side", intro, WARNING, *parts]) if parts else ""


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
