"""``qnad describe``: what is in a saved plan or hardened classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def describe(
    path: Annotated[Path, typer.Argument(help="Plan file, or folder of a hardened classifier.")],
    device: Annotated[
        str | None,
        typer.Option(help="Device of a plan made for a JSON file; default: the plan's, by name."),
    ] = None,
) -> None:
    """Print the crosstalk of a plan by layer: pairs, gates, circuit time and time steps."""
    from qnad_art.cli.screen import Console
    from qnad_art.crosstalk.plan import CrosstalkPlan
    from qnad_art.crosstalk.report import plan_report
    from qnad_art.device import load_device
    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.placement import Placement

    console = Console()
    if path.is_dir():
        classifier = QuantumExecutedClassifier.load(path)
        module = classifier.module
        console.print(classifier.report())
        console.print(plan_report(module.plan, module.placement, module.device_profile))
        plan = module.plan
    else:
        plan = CrosstalkPlan.load(path)
        compute = tuple(site.qubit for site in plan.sites if site.neighbour is None)
        profile = load_device(device or plan.device)
        console.print(plan_report(plan, Placement(compute, plan.sites), profile))
    settings = ", ".join(f"{name}={value}" for name, value in sorted(plan.settings.items()))
    console.print(f"Strategy {plan.strategy}: {settings or 'no settings'}", soft_wrap=True)
