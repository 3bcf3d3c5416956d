"""``qnad harden``: turn trained weights into a classifier that runs as circuits under crosstalk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from typer import Option

from qnad_art.cli import inputs
from qnad_art.cli.inputs import given
from qnad_art.cli.screen import Console
from qnad_art.training.budget import parse_budget

if TYPE_CHECKING:
    from qnad_art.accuracy import Proportion

Figures = dict[str, dict[str, "Proportion"]]


def harden(
    weights: inputs.Weights,
    data: inputs.Data,
    data_dir: inputs.DataDir = None,
    model: inputs.Model = None,
    device: inputs.Device = None,
    shots: inputs.Shots = None,
    strategy: Annotated[
        str,
        Option(help="Crosstalk strategy: tuned, uniform, paper, random, or the name of a plugin."),
    ] = "tuned",
    fraction: inputs.FractionOption = None,
    pairs: Annotated[
        int | None,
        Option(help="Number of gate pairs on each weight (not for the tuned strategy)."),
    ] = None,
    epsilon: inputs.Epsilon = None,
    attack_steps: inputs.AttackSteps = None,
    robust_weight: inputs.RobustWeight = None,
    epochs: inputs.Epochs = None,
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
    without_test_of: inputs.WithoutTestOf = None,
    test_images: Annotated[int, Option(help="Number of test images to measure accuracy on.")] = 500,
    test_epsilon: Annotated[
        str | None,
        Option(help="L∞ budget of the attack in the test. The default is that of tuning."),
    ] = None,
    start: Annotated[
        Path | None,
        Option(
            "--from",
            help="Folder of a classifier hardened from the same weights: tuning starts from its "
            "crosstalk, carried to --device, with its settings of the execution.",
        ),
    ] = None,
    seed: inputs.Seed = 0,
    output: Annotated[
        Path | None, Option(help="Folder to write. The default is ./WEIGHTS-hardened.")
    ] = None,
    resume: inputs.Resume = False,
) -> None:
    """Harden a network: run it as noisy circuits under crosstalk, save it, and attack it.

    Options that you leave out take the defaults of the strategy.
    """
    from qnad_art.accuracy import package_versions
    from qnad_art.device.catalogue import load_device
    from qnad_art.files.atomic import write_json
    from qnad_art.network.settings import ExecutionSettings
    from qnad_art.storage import check_directory

    console = Console(soft_wrap=True)
    output = output or Path(f"{weights.stem}-hardened")
    check_directory(output)  # fails now rather than after hours of tuning
    settings = given(
        fraction=fraction,
        pairs=pairs,
        epsilon=None if epsilon is None else parse_budget(epsilon),
        attack_steps=attack_steps,
        robust_weight=robust_weight,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_pairs=max_pairs,
        patience=patience,
        refresh=refresh,
        precision=precision,
    )
    checkpoint = output.with_name(f"{output.name}.checkpoint.safetensors")
    fit = inputs.CrosstalkFit(
        console, strategy, settings, checkpoint=checkpoint, resume=resume, seed=seed
    )
    budget = _test_budget(test_epsilon, fit)
    options = given(device=device, shots=shots, headroom=headroom, bias=bias, percentile=percentile)
    execution = ExecutionSettings(seed=seed, **options, **given(mapping=mapping, echo=echo or None))
    execution = replace(execution, device=load_device(execution.device))

    source = inputs.Source(weights, data, data_dir, model, images, seed, without_test_of)
    plain, training = source.load(console)
    test = inputs.load_split(console, data, "test", data_dir)
    test = test.take(min(test_images, len(test)), seed)
    before = None if start is None else inputs.load_hardened(start, model)
    defence = fit.run(plain, training, execution, before)
    hardened = defence(training.x, plain)
    card = output.with_name(f"{output.name}.card.json")
    if output.exists():
        console.print(f"Replacing the classifier in {output}.")
    card.unlink(missing_ok=True)  # its figures belong to the replaced classifier
    hardened.save(output.name, str(output.parent))
    console.print(hardened.report())
    inputs.print_plan(console, hardened.module)
    console.print(f"Hardened classifier written to {output}")

    figures = _measure(console, plain, hardened, test, budget)
    console.print(_table(figures, budget, len(test), shots))
    plan, module = hardened.plan, hardened.module
    told = ("headroom", "bias", "gain", "mapping")
    facts = {
        "weights": str(weights),
        "data": training.name,
        "training_images": len(training),
        "training_provenance": training.provenance,
        "test_provenance": test.provenance,
        "test_epsilon": budget,
        "shots": shots,
        "seed": seed,
        "device": module.device_profile.name,
        "device_hash": module.device_profile.hash,
        "crosstalk_model": module.device_profile.crosstalk_model,
        **{name: getattr(module.settings, name) for name in told},
        "strategy": plan.strategy,
        "strategy_settings": dict(plan.settings),
        "crosstalk_achieved": plan.achieved,
        "added_gates": plan.added_gates(),
        "products_per_image": hardened.report().products,
        "figures": {
            stage: {name: cell.as_dict() for name, cell in cells.items()}
            for stage, cells in figures.items()
        },
        "versions": package_versions(),
    }
    write_json(card, facts)
    checkpoint.unlink(missing_ok=True)
    console.print(f"Settings and figures written to {card}")


def _test_budget(text: str | None, fit: inputs.CrosstalkFit) -> float:
    """Return the budget of the test: as given, or that of tuning, or tuning's default."""
    from qnad_art.training.adversarial import AdversarialSettings

    if text is not None:
        return parse_budget(text, "--test-epsilon")
    tuned = fit.strategy if isinstance(fit.strategy, AdversarialSettings) else AdversarialSettings
    return tuned.epsilon


def _measure(console: Console, plain: Any, hardened: Any, test: Any, budget: float) -> Figures:
    from qnad_art.accuracy import compare

    with console.status("Measuring") as status:
        try:
            return compare(
                plain,
                hardened,
                test.x,
                test.y,
                epsilon=budget,
                on_stage=lambda stage: status.update(f"Measuring: {stage}"),
            )
        except KeyboardInterrupt:
            console.print(
                "Stopped while measuring. The hardened classifier is complete; to measure it, "
                "repeat the command with --resume."
            )
            raise typer.Exit(130) from None


def _table(figures: Figures, budget: float, images: int, shots: int | None) -> Table:
    from qnad_art.accuracy import PGD_STEPS

    noise = "exact expectation" if shots is None else f"{shots:,} shots per product, one draw"
    caption = (
        "± half the 95 % Wilson interval. White-box: the hardened network withstands both true "
        "gradients and gradients through saturated activations."
    )
    if shots is not None:
        caption += " A stochastic network must also be attacked with EOT: see hardened.averaged(k)."
    columns = ("attack", Column("plain", justify="right"), Column("hardened", justify="right"))
    title = f"Accuracy in %, {images:,} test images, {noise}"
    table = Table(*columns, title=title, caption=caption)
    for stage, cells in figures.items():
        attack = "none" if stage == "clean" else f"PGD-{PGD_STEPS} ε={budget:.3g}, {stage}"
        table.add_row(attack, str(cells["plain"]), str(cells["hardened"]))
    return table
