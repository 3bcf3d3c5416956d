"""``qnad bench``: performance as ratios, measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from qnad_art.bench import Timing

app = typer.Typer(help="Measure performance as ratios, side by side.", no_args_is_help=True)

Repeats = Annotated[int, typer.Option(help="Rounds counted, after one warm-up.")]
Device = Annotated[str, typer.Option(help="Quantum device.")]


@app.command()
def layers(
    model: Annotated[
        list[str] | None, typer.Option(help="Networks; default lenet5 and vgg16_bn.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    repeats: Repeats = 10,
    device: Device = "ibm_nairobi",
) -> None:
    """Inference: plain PyTorch, compiled expectation, compiled with 1,024 shots; and Aer."""
    from qnad_art.bench import bench_layers, bench_products
    from qnad_art.cli.screen import Console

    console = Console(highlight=True)
    with console.status("measuring"):
        timings = [
            timing
            for name in model or ["lenet5", "vgg16_bn"]
            for timing in bench_layers(name, batch_size=batch_size, repeats=repeats, device=device)
        ]
        rates = bench_products(device=device)
    console.print(_table(f"Inference, batch {batch_size}", "variant", timings, repeats))
    console.print(
        f"Products a second: compiled {rates['compiled']:,.0f}, Aer density matrix "
        f"{rates['aer']:,.0f} (ratio {rates['compiled'] / rates['aer']:,.0f})."
    )


@app.command()
def tuning(
    model: Annotated[
        list[str] | None, typer.Option(help="Networks; default lenet5 and alexnet.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    attack_steps: Annotated[int, typer.Option(help="Steps of the attack in training.")] = 3,
    repeats: Repeats = 10,
    device: Device = "ibm_nairobi",
) -> None:
    """A step of tuned crosstalk against one of adversarial training of the plain network."""
    from qnad_art.bench_tuning import TARGET, bench_tuning
    from qnad_art.cli.screen import Console

    console = Console(highlight=True)
    settings = {"batch_size": batch_size, "attack_steps": attack_steps, "repeats": repeats}
    with console.status("measuring"):
        timings = [
            timing
            for name in model or ["lenet5", "alexnet"]
            for timing in bench_tuning(name, device=device, **settings)
        ]
    title = f"A step of optimisation against PGD-{attack_steps}, batch {batch_size}"
    console.print(_table(title, "optimised", timings, repeats))
    worst = max(timing.ratio for timing in timings)
    verdict = "met" if worst <= TARGET else "missed"
    console.print(f"Target: at most {TARGET} times; {verdict} (largest median {worst:.2f}).")


def _table(title: str, variant: str, timings: Sequence[Timing], repeats: int) -> Table:
    """A row a timing, with memory where it was measured; ``variant`` heads what is compared."""
    import torch
    from rich.table import Table

    threads = torch.get_num_threads()
    table = Table(title=f"{title}, {threads} CPU threads, {repeats} interleaved rounds")
    memory = any(timing.memory_ratio is not None for timing in timings)
    numbers = ("median ms", "time ratio", "quartiles", *(["memory ratio"] if memory else []))
    for heading in ("model", variant):
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for timing in timings:
        table.add_row(
            timing.model,
            timing.variant,
            f"{1e3 * timing.seconds:.1f}",
            f"{timing.ratio:.2f}",
            f"{timing.low:.2f} – {timing.high:.2f}",
            *([] if timing.memory_ratio is None else [f"{timing.memory_ratio:.2f}"]),
        )
    return table
