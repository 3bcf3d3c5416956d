"""``qnad tune --search``: search with progress; table, commands, figure and JSON of the front."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from qnad_art.datasets.dataset import Dataset
    from qnad_art.search.pareto import SearchResult, Trial
    from qnad_art.search.settings import SearchSettings

COLUMNS = {
    "fraction": "fraction",
    "max_pairs": "pairs",
    "epsilon": "ε",
    "robust_weight": "weight",
    "learning_rate": "rate",
    "headroom": "headroom",
    "percentile": "percentile",
    "shots": "shots",
}


def run_search(
    console: Console,
    source: inputs.Source,
    output: Path,
    *,
    epsilon: float | None,
    held: Mapping[str, Any],
    **settings: Any,
) -> None:
    """Search, and write ``search.json`` and ``pareto.png`` to the folder ``output``.

    After Ctrl-C (status 130), finished trials are written unless they are in the storage.

    Args:
        source: the network and the images.
        epsilon: budget at which robustness is measured; it must be given.
        held: searched settings that stay at one value.
        **settings: other settings of :class:`~qnad_art.search.settings.SearchSettings`.
    """
    from qnad_art.device.catalogue import load_device
    from qnad_art.search.pareto import SearchResult
    from qnad_art.search.settings import SearchSettings

    if epsilon is None:
        raise InvalidInputError(
            "--search needs --epsilon, the L∞ budget at which robustness is measured, such as 0.1 "
            "or 6/255."
        )
    inputs.check_folder(output)
    settings |= {name: (value, value) for name, value in held.items()}
    wanted = SearchSettings(epsilon, seed=source.seed, **settings)
    load_device(wanted.device)
    plain, training = source.load(console)
    trials: list[Trial] = []
    try:
        result = _search(console, plain, training, wanted, trials)
    except KeyboardInterrupt:
        console.print(f"Stopped. {_advice(wanted, trials)}")
        if trials and wanted.storage is None:
            _write(console, source, SearchResult(wanted, tuple(trials)), training, output)
        raise typer.Exit(130) from None
    _write(console, source, result, training, output)


def _advice(settings: SearchSettings, trials: Sequence[Trial]) -> str:
    if settings.storage is not None:
        return f"Finished trials are in {settings.storage}; repeat the command to continue."
    kept = f"{len(trials)} trials had finished." if trials else "Nothing was kept."
    return f"{kept} With --storage FILE.db, a search can be continued."


def _write(
    console: Console, source: inputs.Source, result: SearchResult, training: Dataset, output: Path
) -> None:
    """Print and write the result."""
    from qnad_art.files.atomic import write_bytes, write_json
    from qnad_art.search.pareto import pareto_figure

    commands = {trial.number: _command(source, trial, result.settings) for trial in result.front}
    console.print(_table(result))
    console.print("To harden the network with the settings of a trial, run:")
    for number, line in commands.items():
        console.print(f"{number}: {line}")
    json_path, png_path = output / "search.json", output / "pareto.png"
    write_json(json_path, _record(result, training.provenance, commands))
    write_bytes(png_path, pareto_figure(result))
    console.print(f"Figure: {png_path}\nAll trials: {json_path}")


def _search(
    console: Console, plain: Any, training: Dataset, settings: SearchSettings, trials: list[Trial]
) -> SearchResult:
    """Search, and append each finished trial to ``trials``."""
    from qnad_art.search.study import search

    with console.status("First trial") as status:

        def on_trial(trial: Trial) -> None:
            trials.append(trial)
            console.print(_line(trial, settings.trials))
            mean = sum(trial.seconds for trial in trials) / len(trials)
            left = (settings.trials - trial.number) * mean
            status.update(
                f"Trial {trial.number + 1} of {settings.trials}, about {inputs.duration(left)} left"
            )

        return search(plain, training.x, training.y, settings, on_trial=on_trial)


def _line(trial: Trial, trials: int) -> str:
    tried = ", ".join(
        f"{heading} {trial.settings[name]:g}"
        for name, heading in COLUMNS.items()
        if name in trial.settings
    )
    return (
        f"trial {trial.number:>{len(str(trials))}}/{trials}  clean {trial.clean.accuracy:.1%}, "
        f"robust {trial.robust.accuracy:.1%}  {tried}  ({trial.seconds:.1f} s)"
    )


def _table(result: SearchResult) -> Table:
    settings, images = result.settings, result.trials[0].clean.images
    # The command lines show all settings; 80 columns hold only these.
    names = ("fraction", "max_pairs", "epsilon", "robust_weight", "shots")
    shown = {n: COLUMNS[n] for n in names if n in result.trials[0].settings}
    headings = ("trial", "clean", "robust", *shown.values(), "achieved")
    table = Table(
        *(Column(heading, justify="right") for heading in headings),
        box=SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
        title=f"Pareto front of {len(result.trials)} trials: accuracy in % on {images:,} images "
        f"held out from tuning, PGD-{settings.attack_steps} ε={settings.epsilon:.3g}",
        caption="± half the 95 % Wilson interval. The front was selected on these images, so its "
        "figures are optimistic; qnad harden measures on test images.",
    )
    for trial in result.front:
        table.add_row(
            str(trial.number),
            str(trial.clean),
            str(trial.robust),
            *(f"{trial.settings[name]:g}"[:5] for name in shown),
            f"{trial.achieved:.1%}",
        )
    return table


def _command(source: inputs.Source, trial: Trial, settings: SearchSettings) -> str:
    """Return the command line that hardens with the settings of ``trial``."""
    from qnad_art.layers.mappings import DEFAULT_MAPPING

    options = {
        "data": source.data,
        "data_dir": source.data_dir,
        "model": source.model,
        "images": source.images,
        "device": settings.device,
        "bias": settings.bias,
        "mapping": None if settings.mapping == DEFAULT_MAPPING else settings.mapping,
        **trial.settings,
        **settings.tuning,
        "epochs": settings.epochs,
        "test_epsilon": settings.epsilon,
        "seed": settings.seed,
    }
    words = ["qnad", "harden", str(source.weights)]
    for name, value in inputs.given(**options).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _record(result: SearchResult, provenance: str, commands: Mapping[int, str]) -> dict[str, Any]:
    from qnad_art.accuracy import package_versions

    settings = replace(result.settings, storage=None)
    return {
        "settings": {**settings.recorded(), "trials": settings.trials, "study": settings.study},
        "data": provenance,
        "trials": [trial.as_dict() for trial in result.trials],
        "front": [trial.number for trial in result.front],
        "harden": {str(number): line for number, line in commands.items()},
        "versions": package_versions(),
    }
