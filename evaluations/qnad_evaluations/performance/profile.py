"""Where the time of a pass goes, operator by operator: torch's profiler on one network.

python -m qnad_evaluations.performance.profile vgg16_bn --variant shots --batch 64
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from qnad_art.errors import UnknownNameError
from qnad_evaluations.performance.networks import variants


def main(
    model: Annotated[str, typer.Argument(help="Network.")] = "lenet5",
    variant: Annotated[str, typer.Option(help="plain, expectation or shots.")] = "shots",
    batch: Annotated[int, typer.Option(help="Images.")] = 64,
    gradients: Annotated[bool, typer.Option(help="Also of the images, as an attack.")] = False,
    rows: Annotated[int, typer.Option(help="Operators to show.")] = 12,
) -> None:
    """Three passes after two that are not counted; milliseconds a pass on the CPU."""
    networks, x = variants(model, batch, "ibm_nairobi")
    if variant not in networks:
        raise UnknownNameError("variant", variant, networks)
    network = networks[variant].requires_grad_(False)
    x.requires_grad_(gradients)

    def run() -> None:
        with nullcontext() if gradients else torch.no_grad():
            result = network(x)
        if gradients:
            torch.autograd.grad(result.sum(), x)

    for _ in range(2):
        run()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            run()
    found = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in found)
    for row in found[:rows]:
        share, own = row.self_cpu_time_total / total, row.self_cpu_time_total / 3e3
        print(f"{row.key:40} {share:6.1%} {own:10.2f} ms {row.count // 3:5} calls")


if __name__ == "__main__":
    typer.run(main)
