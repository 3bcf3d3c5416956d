"""``qnad devices``: list, show and export device profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from typer import Argument

from qnad_art.cli.screen import Console

Device = Annotated[str, Argument(help="Name or JSON file of the quantum device.")]

app = typer.Typer(help="List, show and export device profiles.", no_args_is_help=True)


@app.command("list")
def list_devices() -> None:
    """List the names of all devices."""
    from qnad_art.device.catalogue import device_names

    for name in device_names():
        typer.echo(name)


@app.command()
def show(device: Device) -> None:
    """Show the qubits, gates and ZZ rates of a device."""
    from qnad_art.device.catalogue import load_device
    from qnad_art.placement.placement import device_placement

    profile = load_device(device)
    compute = set(device_placement(profile).compute)
    console = Console(highlight=True)
    console.print(
        f"{profile.name}  {len(profile.qubits)} qubits, native gate "
        f"{profile.two_qubit_gate}, calibrated {profile.calibrated or 'never'}, "
        f"ZZ rates from: {profile.zz_source}, hash {profile.hash[:12]}"
    )
    qubits = _table("Qubits", "qubit", "runs", "T1 µs", "T2 µs", "sx error", "p(1|0)", "p(0|1)")
    for index, qubit in enumerate(profile.qubits):
        qubits.add_row(
            str(index),
            "products" if index in compute else "crosstalk",
            "∞" if qubit.t1 is None else f"{qubit.t1 * 1e6:.1f}",
            "∞" if qubit.t2 is None else f"{qubit.t2 * 1e6:.1f}",
            f"{qubit.sx_error:.2e}",
            f"{qubit.p1_given_0:.3f}",
            f"{qubit.p0_given_1:.3f}",
        )
    console.print(qubits)
    title = f"{profile.two_qubit_gate} gates"
    edges = _table(title, "control", "target", "error", "duration ns", "ZZ kHz")
    for edge in profile.edges:
        edges.add_row(
            str(edge.control),
            str(edge.target),
            f"{edge.error:.2e}",
            f"{edge.duration * 1e9:.0f}",
            f"{edge.zz_hz / 1e3:.1f}",
        )
    console.print(edges)


def _table(title: str, *headings: str) -> Table:
    columns = (Column(heading, justify="right", overflow="fold") for heading in headings)
    return Table(*columns, title=title)


@app.command()
def export(
    device: Device,
    output: Annotated[Path, Argument(help="JSON file to write.")],
) -> None:
    """Write a device profile to a JSON file, which you can edit and use as --device FILE.json."""
    from qnad_art.device.catalogue import load_device

    load_device(device).save(output)
    typer.echo(f"Device profile written to {output}")
