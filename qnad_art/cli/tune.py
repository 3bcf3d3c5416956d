"""``qnad tune``: tune a crosstalk plan by gradients, or search for good tuning settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from qnad_art.cli import inputs
from qnad_art.cli.inputs import given
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError
from qnad_art.training.budget import parse_budget


def tune(
    weights: inputs.Weights,
    data: inputs.Data,
    data_dir: inputs.DataDir = None,
    model: inputs.Model = None,
    device: inputs.Device = None,
    shots: Annotated[
        list[int] | None,
        Option(
            help="Number of shots per product; the default is the exact expectation. With "
            "--search, repeat the option for the numbers to choose from."
        ),
    ] = None,
    fraction: inputs.FractionOption = None,
    epsilon: Annotated[
        str | None,
        Option(
            help="L∞ budget of the attack used in tuning, such as 0.1 or 6/255. With --search, the "
            "budget at which robustness is measured."
        ),
    ] = None,
    attack_steps: inputs.AttackSteps = None,
    robust_weight: inputs.RobustWeight = None,
    epochs: Annotated[
        int | None, Option(help="Number of tuning epochs. With --search, the epochs of each trial.")
    ] = None,
    batch_size: inputs.BatchSize = None,
    learning_rate: inputs.LearningRate = None,
    max_pairs: inputs.MaxPairs = None,
    headroom: inputs.Headroom = None,
    bias: inputs.Bias = None,
    mapping: inputs.MappingName = None,
    echo: inputs.Echo = False,
    percentile: inputs.Percentile = None,
    patience: inputs.Patience = None,
    refresh: inputs.Refresh = None,
    precision: inputs.Precision = None,
    images: inputs.ImagesOption = None,
    seed: inputs.Seed = 0,
    output: Annotated[
        Path | None,
        Option(
            help="File to write. The default is WEIGHTS-plan.safetensors. With --search, the "
            "folder to write, by default WEIGHTS-search."
        ),
    ] = None,
    resume: inputs.Resume = False,
    search: Annotated[
        bool,
        Option("--search", help="Search for settings with Optuna; options that you give are fixed"),
    ] = False,
    trials: Annotated[
        int | None,
        Option(help="Total number of trials of --search, including those in the storage."),
    ] = None,
    storage: Annotated[
        Path | None,
        Option(help="SQLite file in which --search keeps its trials, so that it can resume."),
    ] = None,
    study: Annotated[str | None, Option(help="Name of the --search in its storage.")] = None,
) -> None:
    """Tune a crosstalk plan on training data and write it, or search for tuning settings.

    Options that you leave out take the defaults of the strategy. No test images are used.
    """
    from qnad_art.device.catalogue import load_device
    from qnad_art.network.settings import ExecutionSettings

    console = Console(soft_wrap=True)
    budget = None if epsilon is None else parse_budget(epsilon)
    fixed = given(
        attack_steps=attack_steps,
        batch_size=batch_size,
        patience=patience,
        refresh=refresh,
        precision=precision,
    )
    searchable = given(
        fraction=fraction,
        robust_weight=robust_weight,
        learning_rate=learning_rate,
        max_pairs=max_pairs,
    )
    execution = given(headroom=headroom, percentile=percentile)
    search_only = given(trials=trials, storage=storage, study=study)
    source = inputs.Source(weights, data, data_dir, model, images, seed)
    if search:
        from qnad_art.cli.search import run_search

        if resume:
            raise InvalidInputError(
                "--resume does not apply to --search, which continues from --storage."
            )
        run_search(
            console,
            source,
            output or Path(f"{weights.stem}-search"),
            epsilon=budget,
            shots=tuple(shots or ()),
            held={**searchable, **execution},
            tuning=fixed,
            **given(device=device, bias=bias, mapping=mapping, epochs=epochs),
            **search_only,
        )
        return
    if search_only:
        names = ", ".join(f"--{name}" for name in search_only)
        raise InvalidInputError(f"{names} only applies to a search; add --search, or leave it out.")
    if shots and len(shots) > 1:
        raise InvalidInputError(
            f"shots are {shots}; give one number, or add --search to choose among several."
        )
    tuning = {**fixed, **searchable, **given(epsilon=budget, epochs=epochs)}
    shot_number = shots[0] if shots else None
    execution |= given(
        device=device, bias=bias, mapping=mapping, shots=shot_number, echo=echo or None
    )
    output = output or Path(f"{weights.stem}-plan.safetensors")
    inputs.check_file(output)
    settings = ExecutionSettings(seed=seed, **execution)
    load_device(settings.device)
    checkpoint = output.with_suffix(".checkpoint.safetensors")
    fit = inputs.CrosstalkFit(
        console, "tuned", tuning, checkpoint=checkpoint, resume=resume, seed=seed
    )
    plain, training = source.load(console)
    defence = fit.run(plain, training, settings)
    defence.plan.save(output)
    checkpoint.unlink(missing_ok=True)
    inputs.print_plan(console, defence(training.x, plain).module)
    console.print(f"Crosstalk plan written to {output}")
