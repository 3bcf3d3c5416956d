"""``qnad devices``: list, show, compare and export device profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from typer import Argument

from qnad_art.cli.screen import Console
from qnad_art.errors import DeviceError, QnadError

if TYPE_CHECKING:
    from qnad_art.device.profile import DeviceProfile

Device = Annotated[str, Argument(help="Name or JSON file of the quantum device.")]

app = typer.Typer(help="List, show, compare and export device profiles.", no_args_is_help=True)


@app.command("list")
def list_devices() -> None:
    """List all devices, with their year of calibration and what their crosstalk can do.

    "rad per unit" is how far one unit of crosstalk, a pair of gates or a wait, turns a weight's
    phase (median over the sites), and "reach" what the longest word can (median over the qubits).
    """
    from qnad_art.circuits.lever import ENOUGH
    from qnad_art.circuits.response import MAX_PAIRS
    from qnad_art.device.catalogue import device_names
    from qnad_art.device.machines import AS_OF, machine_state

    names = device_names()
    headings = ("gate", "calibrated", "rad per unit", "reach", "lever", "machine")
    columns = (Column("device", no_wrap=True), Column("qubits", justify="right"), *headings)
    table = Table(*columns, box=None)
    with Console(stderr=True).status("Reading devices") as status:
        for number, name in enumerate(names, 1):
            status.update(f"Reading device {number} of {len(names)}: {name}")
            table.add_row(name, *_summary(name), machine_state(name))
    console = Console()
    console.print(table)
    console.print(
        f"One unit of crosstalk is a gate pair or a wait; reach is how far up to {MAX_PAIRS} units "
        f"turn a weight's phase, in rad. Lever: weak below {ENOUGH:g}. Machine: as of {AS_OF}."
    )


def _summary(name: str) -> tuple[str, ...]:
    """Qubits, gate, year, phase of a unit, reach and lever; empty for a pattern of names."""
    from qnad_art.circuits.lever import find_lever
    from qnad_art.device.catalogue import load_device
    from qnad_art.device.profile import default_crosstalk_model
    from qnad_art.placement.placement import device_placement

    try:
        device = load_device(name)
    except QnadError:  # a pattern, or a broken plugin, of which `qnad plugins doctor` tells
        return ("",) * 6
    gate = device.two_qubit_gate
    device = device.model_copy(update={"crosstalk_model": default_crosstalk_model(gate)})
    about = (str(len(device.qubits)), gate, (device.calibrated or "")[:4])
    try:
        lever = find_lever(device, device_placement(device).sites)
    except DeviceError:  # no qubit can run products
        return (*about, "", "", "none")
    return (*about, f"{lever.unit:.3f}", f"{lever.reach:.2f}", lever.strength)


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
    console.print(_budget(profile), soft_wrap=True)


def _budget(device: DeviceProfile) -> str:
    """How many gates are at their relaxation floor, and which exceeds its reported error most."""
    from qnad_art.circuits.crosstalk_models import crosstalk_model
    from qnad_art.circuits.error_budget import gate_floors

    gates = gate_floors(device)
    floors = [gate for gate in gates if gate.at_floor]
    text = f"Error budget: {len(floors)} of {len(gates)} gates are at their relaxation floor."
    if floors:
        worst = max(floors, key=lambda gate: gate.relaxation - gate.reported)
        text += (
            " Their T1 and T2 alone make a larger error than is reported, and the model keeps it. "
            f"Worst: {worst.gate} on {', '.join(map(str, worst.qubits))}, {worst.relaxation:.2e} "
            f"instead of {worst.reported:.2e}."
        )
    if not crosstalk_model(device).timed:
        text += (
            f" Under the crosstalk model {device.crosstalk_model!r}, the coupling of an injected "
            "gate's own edge comes on top."
        )
    return text


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


@app.command("diff")
def diff_devices(
    first: Annotated[str, Argument(help="Name or JSON file of a device, such as NAME@2024-05-27.")],
    second: Annotated[str, Argument(help="The other calibration.")],
) -> None:
    """Show what changed from one calibration of a device to another, and how much it matters.

    Crosstalk plans depend most on the ZZ coupling: 5 % of it changes what a word does by as much.
    """
    from qnad_art.device.catalogue import load_device
    from qnad_art.device.comparison import compared, gone

    before, after = load_device(first), load_device(second)
    console = Console()
    table = Table(
        *(Column("quantity", no_wrap=True), "before", "after", "change", "largest", "where"),
        title=f"{before.name} ({before.calibrated}) and {after.name} ({after.calibrated})",
        caption="Medians over qubits or edges; change: median of the absolute relative changes.",
        box=None,
    )

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    for change in compared(before, after):
        table.add_row(
            *(change.quantity, number(change.before), number(change.after)),
            *(percent(change.relative), percent(change.largest), change.where),
        )
    console.print(table)
    for line in gone(before, after):
        console.print(line)
    if before.hash == after.hash:
        console.print("Both have the same noise: plans of one are plans of the other.")
    elif before.crosstalk_model != after.crosstalk_model:
        console.print(
            f"The crosstalk models differ: {before.crosstalk_model} and {after.crosstalk_model}."
        )
    else:
        console.print("A plan of one is carried to the other by hardened.on(…), see docs/drift.md.")
