"""``qnad bench``: performance as ratios, measured side by side."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Measure performance as ratios, side by side.", no_args_is_help=True)


@app.command()
def layers(
    model: Annotated[
        list[str] | None, typer.Option(help="Networks; default lenet5 and vgg16_bn.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    repeats: Annotated[int, typer.Option(help="Rounds counted, after one warm-up.")] = 10,
    device: Annotated[str, typer.Option(help="Quantum device.")] = "ibm_nairobi",
) -> None:
    """Inference: plain PyTorch, compiled expectation, compiled with 1,024 shots; and Aer."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from qnad_art.bench import bench_layers, bench_products

    console = Console()
    table = Table(
        title=f"Inference, batch {batch_size}, {torch.get_num_threads()} CPU threads, "
        f"{repeats} interleaved rounds"
    )
    for heading in ("model", "variant", "median ms", "time ratio", "quartiles", "memory ratio"):
        table.add_column(heading, justify="left" if heading in ("model", "variant") else "right")
    with console.status("measuring"):
        for name in model or ["lenet5", "vgg16_bn"]:
            for timing in bench_layers(name, batch_size=batch_size, repeats=repeats, device=device):
                table.add_row(
                    timing.model,
                    timing.variant,
                    f"{1e3 * timing.seconds:.1f}",
                    f"{timing.ratio:.2f}",
                    f"{timing.low:.2f} – {timing.high:.2f}",
                    f"{timing.memory_ratio:.2f}",
                )
        rates = bench_products(device=device)
    console.print(table)
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
    repeats: Annotated[int, typer.Option(help="Rounds counted, after one warm-up.")] = 10,
    device: Annotated[str, typer.Option(help="Quantum device.")] = "ibm_nairobi",
) -> None:
    """A step of tuned crosstalk against one of adversarial training of the plain network."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from qnad_art.bench_tuning import TARGET, bench_tuning

    console = Console()
    table = Table(
        title=f"A step of optimisation against PGD-{attack_steps}, batch {batch_size}, "
        f"{torch.get_num_threads()} CPU threads, {repeats} interleaved rounds"
    )
    for heading in ("model", "optimised", "median ms", "time ratio", "quartiles"):
        table.add_column(heading, justify="left" if heading in ("model", "optimised") else "right")
    worst = 0.0
    with console.status("measuring"):
        for name in model or ["lenet5", "alexnet"]:
            for timing in bench_tuning(
                name,
                batch_size=batch_size,
                attack_steps=attack_steps,
                repeats=repeats,
                device=device,
            ):
                worst = max(worst, timing.ratio)
                table.add_row(
                    timing.model,
                    timing.variant,
                    f"{1e3 * timing.seconds:.1f}",
                    f"{timing.ratio:.2f}",
                    f"{timing.low:.2f} – {timing.high:.2f}",
                )
    console.print(table)
    verdict = "met" if worst <= TARGET else "missed"
    console.print(f"Target: at most {TARGET} times; {verdict} (largest median {worst:.2f}).")
