"""``qnad verify``: compiled products against an engine, circuit by circuit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from qnad_art.cli import inputs

if TYPE_CHECKING:
    from qnad_art.circuits.response import Readout


def verify(
    device: inputs.Device = None,
    engine: Annotated[
        str, typer.Option(help="Engine that runs the circuits: aer, or the name of a plugin.")
    ] = "aer",
    products: Annotated[int, typer.Option(help="Number of random products to compare.")] = 500,
    readout: Annotated[str, typer.Option(help="Readout: twirled, raw or both.")] = "both",
    shots: Annotated[
        int,
        typer.Option(help="Number of shots for the comparison of counts; 0 for no comparison."),
    ] = 4096,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference between expectations that passes.")
    ] = 1e-9,
    max_pairs: Annotated[
        int | None,
        typer.Option(
            help="Largest number of gate pairs, of either sign, in the products. The default is 8."
        ),
    ] = None,
    mapping: inputs.MappingName = None,
    seed: Annotated[int, typer.Option(help="Seed of the products and of the engine.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Instead of single products, run this number of whole time steps on Aer: all "
            "qubits at once, with the crosstalk model of the device."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Saved classifier whose time steps are run on its own device (with --steps). The "
            "default is random crosstalk."
        ),
    ] = None,
) -> None:
    """Compare random compiled products, or whole time steps, with circuits.

    The exit status is 1 if they differ.
    """
    from rich.table import Table
    from rich.text import Text

    from qnad_art.circuits.response import MAX_PAIRS, READOUTS
    from qnad_art.cli.screen import Console
    from qnad_art.device.catalogue import load_device
    from qnad_art.device.profile import DEFAULT_DEVICE
    from qnad_art.engines.verify import COUNTS_LEVEL, verify_device
    from qnad_art.errors import InvalidInputError

    chosen = [name for name in READOUTS if readout in (name, "both")]
    if not chosen:
        raise InvalidInputError(f"readout {readout!r} is not one of twirled, raw, both.")
    if steps is not None:
        if mapping is not None:
            raise InvalidInputError(
                "Time steps are run with random angles, whatever stands for them: leave out "
                "--mapping."
            )
        _verify_steps(device or DEFAULT_DEVICE, folder, steps, chosen, max_pairs or MAX_PAIRS, seed)
    if folder is not None:
        raise InvalidInputError("A folder's products are compared by whole steps: add --steps 20.")
    if shots < 0:
        raise InvalidInputError(f"shots is {shots}; give 0 (no counts) or more.")
    if not tolerance >= 0:
        raise InvalidInputError(f"tolerance is {tolerance:g}; give 0 or more.")
    console = Console(highlight=True)
    profile = load_device(device or DEFAULT_DEVICE)
    shown = "" if mapping is None else f", mapping {mapping}"
    table = Table(title=f"Compiled products against {engine} on {profile.name}{shown}")
    for heading in ("readout", "products", "largest |difference|", "largest |z|", "p (χ²)", ""):
        table.add_column(heading, justify="right")
    passed = True
    for name in chosen:
        with console.status(f"Running {products:,} circuits for each comparison, {name} readout"):
            result = verify_device(
                profile,
                engine=engine,
                products=products,
                readout=name,
                shots=shots or None,
                tolerance=tolerance,
                seed=seed,
                **inputs.given(max_pairs=max_pairs, mapping=mapping),
            )
        passed &= result.passed
        table.add_row(
            name,
            f"{products:,}",
            "–" if result.largest_difference is None else f"{result.largest_difference:.2e}",
            "–" if result.largest_z is None else f"{result.largest_z:.2f}",
            "–" if result.chi2_p_value is None else f"{result.chi2_p_value:.3f}",
            Text("pass", "green") if result.passed else Text("FAIL", "bold red"),
        )
    console.print(table)
    exact = "not compared" if result.largest_difference is None else f"to {tolerance:g}"
    counts = f"({shots:,} shots) at level {COUNTS_LEVEL:g}" if shots else "not compared"
    console.print(f"Criteria: expectations {exact}; counts {counts}.")
    raise typer.Exit(0 if passed else 1)


def _verify_steps(
    device: str, folder: Path | None, steps: int, readouts: list[Readout], max_pairs: int, seed: int
) -> NoReturn:
    """Compare whole time steps of a plan, or of random crosstalk, with the compiled products."""
    from rich.table import Table
    from rich.text import Text

    from qnad_art.cli.screen import Console
    from qnad_art.device.catalogue import load_device
    from qnad_art.engines.verify_steps import verify_steps
    from qnad_art.storage import read_saved

    profile, plan = load_device(device), None
    if folder is not None:
        saved = read_saved(folder)
        profile, plan = saved.device, saved.plan()
    console = Console(highlight=True)
    table = Table(title=f"Whole time steps on {profile.name}, crosstalk {profile.crosstalk_model}")
    for heading in (
        "readout",
        "steps",
        "products",
        "words",
        "met",
        "qubits",
        "largest |difference|",
    ):
        table.add_column(heading, justify="right")
    table.add_column("")
    passed = True
    for readout in readouts:
        with console.status(f"running {steps:,} steps, {readout} readout"):
            found = verify_steps(
                profile, plan=plan, steps=steps, readout=readout, max_pairs=max_pairs, seed=seed
            )
        passed &= found.passed
        table.add_row(
            readout,
            f"{found.steps:,}",
            f"{found.products:,}",
            f"{found.injected:,}",
            f"{found.met:,}",
            f"{found.largest_cluster}",
            f"{found.largest_difference:.2e}",
            Text("pass", "green") if found.passed else Text("FAIL", "bold red"),
        )
    console.print(table)
    console.print(
        f"Criterion: expectations to {found.tolerance:g}. Words: products with crosstalk. Met: "
        "products that start after the crosstalk of another one and meet what it leaves behind. "
        "Qubits: the largest number simulated together."
    )
    raise typer.Exit(0 if passed else 1)
