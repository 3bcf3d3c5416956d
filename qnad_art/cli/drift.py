"""``qnad drift``: how long a hardened classifier holds after its device was calibrated."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from typer import Argument, Option

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError
from qnad_art.training.budget import parse_budget

if TYPE_CHECKING:
    from qnad_art.device.drift import DriftModel
    from qnad_art.drift_study import DriftPoint, DriftSettings


def drift(
    folder: Annotated[Path, Argument(help="Folder of a hardened classifier.")],
    data: inputs.Data,
    data_dir: inputs.DataDir = None,
    model: inputs.HardenedModel = None,
    drift_model: Annotated[
        str, Option(help="How the device drifts: typical, or the name of a plugin.")
    ] = "typical",
    scale: Annotated[
        list[str] | None,
        Option(help="Factor of one part of the drift, such as zz=2 or detuning=0. Repeatable."),
    ] = None,
    span: Annotated[
        list[str] | None,
        Option(
            help="Time since the calibration: hours, day, month, or a number of hours. Repeatable "
            "(default: all three)."
        ),
    ] = None,
    parts: Annotated[
        bool, Option(help="Also measure every part of the drift alone, at the longest time.")
    ] = True,
    words: Annotated[
        list[str] | None,
        Option(
            help="What is done about the drift: kept (nothing) or re-encoded (crosstalk chosen "
            "anew on the drifted calibration). Repeatable (default: both)."
        ),
    ] = None,
    draws: Annotated[int, Option(help="Number of drifted devices drawn for every point.")] = 5,
    epsilon: Annotated[str, Option(help="L∞ budget of PGD, such as 0.1 or 6/255.")] = "0.1",
    steps: Annotated[int | None, Option(help="Number of steps of PGD (default: 40).")] = None,
    restarts: Annotated[int, Option(help="Number of random restarts of PGD.")] = 0,
    test_images: Annotated[int, Option(help="Number of test images.")] = 200,
    seed: inputs.Seed = 0,
    output: Annotated[
        Path | None,
        Option(help="Folder for the table (JSON) and the figure. The default is ./FOLDER-drift."),
    ] = None,
) -> None:
    """Measure a hardened classifier on drifted devices, clean and under attack.

    The attacker of day 0 made the examples on the calibrated device, the attacker of the day makes
    them on the drifted one. A command that was stopped goes on where it was.
    """
    from qnad_art.device.drift import PARTS
    from qnad_art.drift_study import DriftPoint, DriftSettings, drift_study, summarised
    from qnad_art.files.atomic import write_bytes, write_json
    from qnad_art.files.unfinished import Unfinished
    from qnad_art.plugins.discovery import load_plugin
    from qnad_art.storage import read_saved

    console = Console(soft_wrap=True)
    settings = DriftSettings(
        parts=PARTS if parts else (),
        draws=draws,
        epsilon=parse_budget(epsilon),
        restarts=restarts,
        seed=seed,
        **inputs.given(
            spans=tuple(span) if span else None,
            words=tuple(words or ("kept", "re-encoded")),
            steps=steps,
        ),
    )
    drifts: DriftModel = load_plugin("drift model", drift_model).scaled(_factors(scale or []))
    hardened = inputs.load_hardened(folder, model)
    test = inputs.load_split(console, data, "test", data_dir)
    test = test.take(min(test_images, len(test)), seed)
    output = output or Path(f"{folder.name}-drift")
    facts = {
        "settings": asdict(settings),
        "drift_model": asdict(drifts),
        "folder": read_saved(folder).checksum,
        "data": test.provenance,
        "images": len(test),
        "device": hardened.module.device_profile.name,
        "crosstalk_model": hardened.module.device_profile.crosstalk_model,
    }
    kept = Unfinished(output, facts)
    done = [DriftPoint.from_dict(point) for point in kept.figures()]
    found = list(done)

    def note(point: DriftPoint) -> None:
        found.append(point)
        kept.keep([one.as_dict() for one in found])
        console.print(
            f"{point.part}, {point.hours:g} h, {point.words}, device {point.draw}: clean "
            f"{point.clean} %, attacker of day 0 {point.before} %, of the day "
            f"{point.of_the_day} %"
        )

    points = drift_study(
        hardened, test.x, test.y, model=drifts, settings=settings, done=done, on_point=note
    )
    rows = summarised(points)
    console.print(_table(rows, facts, settings))
    write_json(
        output / "drift.json",
        {**facts, "summary": rows, "points": [point.as_dict() for point in points]},
    )
    write_bytes(output / "drift.png", _figure(rows, settings))
    kept.remove()
    console.print(f"Written to {output}: drift.json, drift.png")


def _factors(given: Sequence[str]) -> dict[str, float]:
    """Factors by part from ``zz=2``."""
    factors = {}
    for text in given:
        part, _, factor = text.partition("=")
        try:
            factors[part] = float(factor)
        except ValueError:
            raise InvalidInputError(
                f"--scale {text!r} is not PART=FACTOR with a number, such as zz=2."
            ) from None
    return factors


def _attack(settings: DriftSettings) -> str:
    again = f"×{1 + settings.restarts}" if settings.restarts else ""
    return f"PGD-{settings.steps}{again}, ε {settings.epsilon:.3g}"


def _table(rows: Sequence[dict[str, Any]], facts: dict[str, Any], settings: DriftSettings) -> Table:
    table = Table(
        box=SIMPLE_HEAD,  # fits 80 columns
        padding=(0, 1, 0, 0),
        title=f"Accuracy in % on drifted devices: {facts['device']}, crosstalk model "
        f"{facts['crosstalk_model']}, {facts['images']:,} test images, {_attack(settings)}",
        caption="Mean ± standard deviation over the devices drawn (worst of them). "
        "Exact expectation unless the classifier has shots. Attacks have true gradients and "
        "gradients through saturated activations.",
    )
    table.add_column("what", no_wrap=True)
    table.add_column("words", no_wrap=True)
    for name in ("hours", "draws", "clean", "attacker of day 0", "attacker of the day"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for name in ("clean", "before", "of_the_day"):
            cell = row[name]
            text = f"{100 * cell['mean']:.1f}"
            if cell["sd"] is not None:
                text += f" ±{100 * cell['sd']:.1f} ({100 * cell['worst']:.0f})"
            cells.append(text)
        calibrated = row["hours"] == 0
        what, words = ("nothing", "–") if calibrated else (row["part"], row["words"])
        table.add_row(what, words, f"{row['hours']:g}", str(row["draws"]), *cells)
    return table


def _figure(rows: Sequence[dict[str, Any]], settings: DriftSettings) -> bytes:
    """Accuracy against time and, if they were measured, of the parts alone, as PNG."""
    from matplotlib.figure import Figure

    panels = 2 if settings.parts else 1
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    _draw_over_time(axes[0], rows)
    axes[0].set_ylabel(f"accuracy (%), {_attack(settings)}")
    if settings.parts:
        _draw_parts(axes[1], rows)
    for panel in axes:
        panel.set_ylim(0, 101)
        panel.grid(alpha=0.3)
        panel.legend(loc="lower left", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw_over_time(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    start = [row for row in rows if row["hours"] == 0]
    for words, style in _STYLES.items():
        mine = [r for r in rows if r["words"] == words and r["part"] == "all" and r["hours"] > 0]
        if mine:
            path = [*start, *sorted(mine, key=lambda row: row["hours"])]
            for name, (line, label) in _LINES.items():
                _draw(axes, path, name, **style, linestyle=line, label=f"{words}, {label}")
            axes.set_xticks(range(len(path)), [f"{row['hours']:g} h" for row in path])
    axes.set_title("all parts")
    axes.set_xlabel("since the calibration")


def _draw_parts(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    parts = [row for row in rows if row["part"] != "all"]
    for words, style in _STYLES.items():
        mine = [row for row in parts if row["words"] == words]
        if mine:
            _draw(axes, mine, "of_the_day", **style, linestyle="none", label=words)
            axes.set_xticks(range(len(mine)), [row["part"] for row in mine])
    axes.set_title(f"each part alone, {parts[0]['hours']:g} h, attacker of the day")


_STYLES = {
    "kept": {"color": "#d55e00", "marker": "o"},
    "re-encoded": {"color": "#0072b2", "marker": "s"},
}
_LINES = {
    "clean": (":", "clean"),
    "before": ("--", "attacker of day 0"),
    "of_the_day": ("-", "attacker of the day"),
}


def _draw(axes: Any, rows: Sequence[dict[str, Any]], name: str, **style: Any) -> None:
    """Means with the standard deviation over the devices."""
    means = [100 * row[name]["mean"] for row in rows]
    spread = [100 * (row[name]["sd"] or 0) for row in rows]
    axes.errorbar(range(len(rows)), means, yerr=spread, capsize=3, markersize=5, **style)
