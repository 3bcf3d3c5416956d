"""``qnad quickstart``: a demonstration of the whole method on embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from typer import Option

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console

if TYPE_CHECKING:
    from qnad_art.quickstart.results import Accuracy, QuickstartResult
    from qnad_art.training.adversarial import TuningEpoch


def quickstart(
    fast: Annotated[
        bool, Option("--fast", help="Use fewer epochs, images and attack budgets.")
    ] = False,
    device: inputs.Device = None,
    shots: inputs.Shots = None,
    output: Annotated[
        Path, Option(help="Folder in which to write the figure and the JSON file.")
    ] = Path("qnad-quickstart"),
    seed: inputs.Seed = 0,
) -> None:
    """Show the whole method on embedded data in about two minutes.

    LeNet-5 is trained, run as noisy circuits without crosstalk, with uniform and with tuned
    crosstalk, and attacked with FGSM and PGD.
    """
    from rich import progress as bars

    from qnad_art.device.catalogue import load_device
    from qnad_art.quickstart.results import QuickstartSettings
    from qnad_art.quickstart.story import cells_to_measure, run_quickstart, save_quickstart

    inputs.check_folder(output)
    make = QuickstartSettings.fast if fast else QuickstartSettings
    settings = make(shots=shots, seed=seed, **inputs.given(device=device))
    model = load_device(settings.device).crosstalk_model
    console = Console(highlight=True)
    console.print(
        "QNAD quickstart: LeNet-5 on 5,000 MNIST images, with its products run as circuits of "
        f"{settings.device}, under the crosstalk model {model}."
    )
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, *times, console=console) as progress:
        training = progress.add_task("training", total=settings.epochs)
        tuning = progress.add_task("tuning", total=settings.tuning_epochs, start=False)
        attacking = progress.add_task("attacking", total=cells_to_measure(settings), start=False)

        def report_tuning(epoch: TuningEpoch) -> None:
            figures = f"clean {epoch.clean:.0%}, robust {epoch.robust:.0%}"
            progress.start_task(tuning)
            progress.update(
                tuning, completed=epoch.epoch, description=f"tuning ({figures} in validation)"
            )

        def report_cell(cell: Accuracy) -> None:
            what = f"{cell.attack} {cell.rung} ε={cell.epsilon:g}" if cell.attack else "clean"
            progress.start_task(attacking)
            progress.update(attacking, advance=1, description=f"{cell.network}: {what}")

        try:
            result = run_quickstart(
                settings,
                folder=output,
                on_epoch=lambda epoch: progress.update(training, completed=epoch.epoch),
                on_tuning=report_tuning,
                on_cell=report_cell,
            )
        except KeyboardInterrupt:
            progress.stop()
            kept = f"Finished work is kept in {output}; repeat the command to continue."
            lost = "No epoch had finished, so nothing was kept."
            console.print(f"Stopped. {kept if output.exists() else lost}")
            raise typer.Exit(130) from None
        progress.update(attacking, description="attacking")
    console.print(_table(result))
    for line in _conclusions(result):
        console.print(f"• {line}")
    json_path, png_path = save_quickstart(result, output)
    console.print(f"Figure: {png_path}\nFigures as data: {json_path}")


def _table(result: QuickstartResult) -> Table:
    from qnad_art.quickstart.results import ATTACKS, NETWORKS, RUNGS

    images = result.cells[0].images
    shots = result.settings.shots
    numbers = (Column(heading, justify="right") for heading in ("ε", *NETWORKS))
    table = Table(
        Column("attack", no_wrap=True),
        *numbers,
        box=SIMPLE_HEAD,  # four networks fit 80 columns
        title=f"Accuracy in %, {images} test images, "
        + ("exact expectation" if shots is None else f"{shots:,} shots per product, one draw"),
        caption="± half the 95 % Wilson interval; ε is the L∞ budget for pixels in [0, 1].",
    )

    def show(cell: Accuracy) -> str:
        return f"{100 * cell.accuracy:.1f} ± {50 * (cell.high - cell.low):.1f}"

    table.add_row("none", "", *(show(result.cell(n)) for n in NETWORKS))
    for attack in ATTACKS:
        for rung in RUNGS:
            table.add_section()
            for epsilon in result.settings.epsilons:
                cells = (result.cell(n, attack, rung, epsilon) for n in NETWORKS)
                table.add_row(f"{attack} {rung}", f"{epsilon:g}", *map(show, cells))
    return table


def _conclusions(result: QuickstartResult) -> list[str]:
    """State the main results of the table in words."""
    from qnad_art.quickstart.results import ATTACKS, NETWORKS, RUNGS

    plain = NETWORKS[0]

    def change(network: str, rung: str) -> float:
        gains = [
            result.cell(network, attack, rung, epsilon).accuracy
            - result.cell(plain, attack, rung, epsilon).accuracy
            for attack in ATTACKS
            for epsilon in result.settings.epsilons
        ]
        return 100 * sum(gains) / len(gains)

    lines = [
        f"One image takes {result.products_per_image:,} products, each of them a circuit "
        f"({result.products_with_biases:,} with tuned crosstalk, where biases are products too)."
    ]
    for network in NETWORKS[1:]:
        share = result.crosstalk_achieved.get(network)
        what = network.capitalize() + ("" if share is None else f" on {share:.1%} of the weights")
        transfer, white_box = (change(network, rung) for rung in RUNGS)
        clean = 100 * (result.cell(network).accuracy - result.cell(plain).accuracy)
        lines.append(
            f"{what}, compared with plain: {clean:+.1f} points of clean accuracy; under attack, "
            f"averaged over attacks and ε, {transfer:+.1f} points (transfer) and {white_box:+.1f} "
            "points (white-box)."
        )
    return lines
