"""``qnad resources``: what an inference would cost on hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qnad_art.cli import inputs

if TYPE_CHECKING:
    from torch import nn

    from qnad_art.device.profile import DeviceProfile
    from qnad_art.placement.plan import CrosstalkPlan


def resources(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"Weights file, folder of a hardened classifier, or network. {inputs.RUNS_CODE}",
        ),
    ],
    model: inputs.HardenedModel = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Shape of one image, such as 1x28x28. The default is that of the network's usual "
            "data; code that is not a ModelEntry does not say it."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Name or JSON file of the quantum device. The default is the folder's own, "
            "otherwise ibm_nairobi."
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Number of shots for each product. The default is the folder's own, otherwise "
            "1,024."
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Crosstalk plan to count: a plan file or the folder of a classifier."),
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(help="Instead of a plan, put crosstalk on this fraction of the weights."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="Number of gate pairs on each of those weights. The default is 1."),
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option(
            help="Readout: twirled or raw. The default is the folder's own, otherwise twirled."
        ),
    ] = None,
    repetition_delay: Annotated[
        float,
        typer.Option(help="Delay between shots in µs. The default is IBM's default_rep_delay."),
    ] = 250.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print what the inference of one image would cost on hardware, layer by layer."""
    from json import dumps

    from qnad_art.circuits.response import READOUTS
    from qnad_art.cli.screen import Console
    from qnad_art.errors import InvalidInputError
    from qnad_art.resources.inference_cost import inference_resources, random_plan

    if plan is not None and fraction is not None:
        raise InvalidInputError("--plan and --fraction both set the crosstalk; give one of them.")
    if pairs is not None and fraction is None:
        raise InvalidInputError("--pairs applies to the crosstalk of --fraction; give both.")
    made, shape = _network(network, model, _sizes(input_shape))
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


def _sizes(shape: str | None) -> dict[str, int]:
    """``1x28x28`` as arguments of :func:`~qnad_art.models.build_model`."""
    from qnad_art.errors import InvalidInputError

    if shape is None:
        return {}
    parts = shape.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or parts[1] != parts[2]:
        raise InvalidInputError(
            f"--input-shape is {shape!r}; give channels and pixels of square images, as in 1x28x28."
        )
    return {"in_channels": int(parts[0]), "image_size": int(parts[1])}


def _network(
    name: str, model: str | None, sizes: dict[str, int]
) -> tuple[nn.Module, tuple[int, ...]]:
    """The network, plain or quantum-executed, and the shape of an input."""
    from qnad_art.errors import InvalidInputError
    from qnad_art.models.architectures import architecture_of, build_model, model_names
    from qnad_art.models.weights import load_model

    if Path(name).is_dir() and name not in model_names():
        if sizes:
            raise InvalidInputError(f"{name} is a folder, which has its own input shape.")
        classifier = inputs.load_hardened(Path(name), model)
        return classifier.module, tuple(classifier.input_shape)
    # What is neither a name nor looks like a file is a name with a typing error.
    is_file = name.endswith(".safetensors") or Path(name).is_file()
    if is_file:
        named = None if model is None else inputs.find_network(model)
        network = load_model(name, named, **sizes)
    elif model is not None:
        raise InvalidInputError(
            f"{name} is a network already: --model is for weights files and folders."
        )
    else:
        network = build_model(inputs.find_network(name), **sizes).eval()
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
                f"The folder's crosstalk is for {own.name} and is not counted; --fraction puts "
                f"crosstalk on {profile.name}.",
                err=True,
            )


def _plan(path: Path) -> CrosstalkPlan:
    from qnad_art.placement.plan import CrosstalkPlan
    from qnad_art.storage import PLAN

    return CrosstalkPlan.load(path / PLAN if path.is_dir() else path)
