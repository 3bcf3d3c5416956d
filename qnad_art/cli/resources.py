"""``qnad resources``: what an inference would cost on hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import nn

    from qnad_art.device.profile import DeviceProfile
    from qnad_art.placement.plan import CrosstalkPlan


def resources(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a network (lenet5), weights file, or folder of a hardened classifier.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Network of weights that do not name it, e.g. lenet5.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Name or JSON file; default: the folder's own, else ibm_nairobi."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="A product; default: the folder's own, else 1,024.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Crosstalk plan: a file, or a hardened folder.")
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Crosstalk on so many of the weights instead, 0 to 1.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Gate pairs on each of them; default: 1.")
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option(help="twirled or raw; default: the folder's own, else twirled."),
    ] = None,
    repetition_delay: Annotated[
        float,
        typer.Option(help="µs between shots; default: that of IBM's devices (default_rep_delay)."),
    ] = 250.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print what the inference of one image would cost on hardware, by layer."""
    from json import dumps

    from qnad_art.circuits.response import READOUTS
    from qnad_art.cli.screen import Console
    from qnad_art.errors import InvalidInputError
    from qnad_art.resources.inference_cost import inference_resources, random_plan

    if plan is not None and fraction is not None:
        raise InvalidInputError("--plan and --fraction both say the crosstalk; give one of them.")
    if pairs is not None and fraction is None:
        raise InvalidInputError("--pairs is of the crosstalk that --fraction asks for; give both.")
    made, shape = _network(network, model)
    readout = readout or _own_readout(made)
    chosen = [name for name in READOUTS if name == readout]
    if not chosen:
        raise InvalidInputError(f"readout {readout!r} is not one of {', '.join(READOUTS)}.")
    profile = _device(made, device)
    crosstalk = None if plan is None else _plan(plan)
    if fraction is not None:
        crosstalk = random_plan(
            made, profile, fraction=fraction, pairs=1 if pairs is None else pairs
        )
    elif plan is None:
        _say_what_is_left_out(made, profile)
    found = inference_resources(
        made,
        shape,
        device=profile,
        shots=shots,
        plan=crosstalk,
        readout=chosen[0],
        repetition_delay=1e-6 * repetition_delay,
    )
    if json:
        typer.echo(dumps(found.content(), indent=1))
    else:
        Console().print(found)


def _network(name: str, model: str | None) -> tuple[nn.Module, tuple[int, ...]]:
    """The network, plain or quantum-executed, and the shape of an input."""
    from qnad_art.errors import InvalidInputError
    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.models.architectures import architecture_of, build_model, model_names
    from qnad_art.models.weights import load_model

    if Path(name).is_dir() and name not in model_names():
        classifier = QuantumExecutedClassifier.load(name)
        return classifier.module, tuple(classifier.input_shape)
    # What is neither a name nor looks like a file is a name with a typing error.
    is_file = name.endswith(".safetensors") or Path(name).is_file()
    if model is not None and not is_file:
        raise InvalidInputError(f"{name} is a network by name: --model is for files of weights.")
    network = load_model(name, model) if is_file else build_model(name).eval()
    made_for = architecture_of(network)
    return network, (made_for.in_channels, made_for.image_size, made_for.image_size)


def _device(network: nn.Module, name: str | None) -> DeviceProfile:
    from qnad_art.device.catalogue import device_names, load_device
    from qnad_art.device.profile import DEFAULT_DEVICE
    from qnad_art.network.module import QuantumExecutedModule

    if name is not None or not isinstance(network, QuantumExecutedModule):
        return load_device(name or DEFAULT_DEVICE)
    own = network.device_profile
    if own.name in device_names():
        # Folders of earlier versions do not say how long a readout takes.
        same = load_device(own.name)
        return same if same.hash == own.hash else own
    return own


def _own_readout(network: nn.Module) -> str:
    from qnad_art.network.module import QuantumExecutedModule

    if isinstance(network, QuantumExecutedModule):
        return network.settings.readout
    return "twirled"


def _say_what_is_left_out(network: nn.Module, profile: DeviceProfile) -> None:
    """A folder's crosstalk is for its own device; on another none is counted."""
    from qnad_art.network.module import QuantumExecutedModule

    if isinstance(network, QuantumExecutedModule) and network.plan.injected:
        own = network.device_profile
        if own.name != profile.name:
            typer.echo(
                f"Without the crosstalk of the folder, which is for {own.name}: --fraction puts "
                f"some on {profile.name}.",
                err=True,
            )


def _plan(path: Path) -> CrosstalkPlan:
    from qnad_art.placement.plan import CrosstalkPlan
    from qnad_art.storage import PLAN

    return CrosstalkPlan.load(path / PLAN if path.is_dir() else path)
