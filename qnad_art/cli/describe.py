"""``qnad describe``: the contents of a saved plan or hardened classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from qnad_art.placement.plan import CrosstalkPlan


def describe(
    path: Annotated[Path, Argument(help="Plan file, or folder of a hardened classifier.")],
    device: Annotated[
        str | None, Option(help="Device of a plan file, needed if it is not known by name.")
    ] = None,
    model: inputs.HardenedModel = None,
) -> None:
    """Describe the crosstalk of a saved plan or classifier, layer by layer.

    The table shows the gate pairs, the added gates, the added circuit time and the time steps. For
    a classifier, another table shows which of its layers run as circuits.
    """
    from qnad_art.crosstalk.report import plan_report
    from qnad_art.device.catalogue import load_device
    from qnad_art.placement.plan import CrosstalkPlan

    console = Console()
    if path.is_dir():
        if device is not None:
            raise InvalidInputError(
                f"{path} is a folder, which includes its device: leave out --device."
            )
        plan = _print_folder(console, path, model)
    else:
        if model is not None:
            raise InvalidInputError(f"{path} is a plan: leave out --model, which is for folders.")
        plan = CrosstalkPlan.load(path)
        try:
            profile = load_device(plan.device if device is None else device)
        except UnknownNameError as error:
            if device is not None:
                raise
            raise InvalidInputError(
                f"The plan is for the device {plan.device!r}, which is not known by name: give its "
                "JSON file with --device."
            ) from error
        console.print(plan_report(plan, plan.placement(profile), profile))
    settings = ", ".join(f"{name}={value}" for name, value in sorted(plan.settings.items()))
    console.print(f"Strategy {plan.strategy}: {settings or 'no settings'}", soft_wrap=True)


def _print_folder(console: Console, folder: Path, model: str | None) -> CrosstalkPlan:
    """Print the contents of a folder, at least its plan, and return the plan."""
    from qnad_art.crosstalk.report import plan_report
    from qnad_art.models.architectures import model_names
    from qnad_art.storage import read_saved

    saved = read_saved(folder)
    if model is not None or saved.architecture in model_names():
        console.print(inputs.load_hardened(folder, model).report())
    else:
        console.print(
            f"The network of this classifier ({saved.architecture or 'of a class of its own'}) is "
            "code, which is not part of the folder. --model FILE.py:NAME adds a table of all its "
            "layers.",
            soft_wrap=True,
        )
    model = saved.device.crosstalk_model
    console.print(f"Execution: {saved.settings}; crosstalk model {model}", soft_wrap=True)
    plan = saved.plan()
    console.print(plan_report(plan, saved.placement, saved.device))
    return plan
