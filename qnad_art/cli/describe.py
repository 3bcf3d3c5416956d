"""``qnad describe``: what is in a saved plan or hardened classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qnad_art.device.profile import DeviceProfile


def describe(
    path: Annotated[Path, typer.Argument(help="Plan file, or folder of a hardened classifier.")],
    device: Annotated[
        str | None,
        typer.Option(help="Device of a plan made for a JSON file; default: the plan's, by name."),
    ] = None,
) -> None:
    """Print the crosstalk of a plan by layer: pairs, gates, circuit time and time steps."""
    from qnad_art.cli.screen import Console
    from qnad_art.crosstalk.report import plan_report
    from qnad_art.device.catalogue import load_device
    from qnad_art.errors import InvalidInputError
    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.placement.placement import Placement
    from qnad_art.placement.plan import CrosstalkPlan

    console = Console()
    if path.is_dir():
        if device is not None:
            raise InvalidInputError(
                f"{path} is a folder and holds its device: leave out --device, which is for plans."
            )
        classifier = QuantumExecutedClassifier.load(path)
        module = classifier.module
        console.print(classifier.report())
        console.print(f"Execution: {module.settings}", soft_wrap=True)
        console.print(plan_report(module.plan, module.placement, module.device_profile))
        plan = module.plan
    else:
        plan = CrosstalkPlan.load(path)
        compute = tuple(site.qubit for site in plan.sites if site.neighbour is None)
        profile = _device(plan.device) if device is None else load_device(device)
        console.print(plan_report(plan, Placement(compute, plan.sites), profile))
    settings = ", ".join(f"{name}={value}" for name, value in sorted(plan.settings.items()))
    console.print(f"Strategy {plan.strategy}: {settings or 'no settings'}", soft_wrap=True)


def _device(name: str) -> DeviceProfile:
    """The device that a plan names, if it is one by name."""
    from qnad_art.device.catalogue import load_device
    from qnad_art.errors import InvalidInputError, UnknownNameError

    try:
        return load_device(name)
    except UnknownNameError as error:
        raise InvalidInputError(
            f"The plan is for the device {name!r}, which is none by name: give its JSON file with "
            "--device."
        ) from error
