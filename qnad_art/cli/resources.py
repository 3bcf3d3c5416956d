"""``qnad resources``: what an inference would cost on hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from qnad_art.cli import inputs
from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import nn

    from qnad_art.device.profile import DeviceProfile
    from qnad_art.network.module import QuantumExecutedModule


def resources(
    network: Annotated[
        str,
        Argument(
            metavar="MODEL",
            help=f"Weights file, folder of a hardened classifier, or network. {inputs.RUNS_CODE}",
        ),
    ],
    model: inputs.HardenedModel = None,
    input_shape: Annotated[
        str | None,
        Option(
            help="Shape of one image, such as 1x28x28. The default is that of the network's usual "
            "data; it is needed for code that is not a ModelEntry."
        ),
    ] = None,
    device: Annotated[
        str | None,
        Option(
            help="Name or JSON file of the quantum device. The default is the folder's own, "
            "otherwise ibm_nairobi."
        ),
    ] = None,
    shots: Annotated[
        int | None,
        Option(help="Shots per product. The default is the folder's own, otherwise 1,024."),
    ] = None,
    plan: Annotated[
        Path | None,
        Option(help="Crosstalk plan to count: a plan file or the folder of a classifier."),
    ] = None,
    fraction: Annotated[
        float | None,
        Option(help="Instead of a plan, put crosstalk on this fraction of the weights."),
    ] = None,
    pairs: Annotated[
        int | None, Option(help="Number of gate pairs on each of those weights (default: 1).")
    ] = None,
    readout: Annotated[
        str | None,
        Option(help="Readout: twirled or raw. The default is the folder's own, otherwise twirled."),
    ] = None,
    repetition_delay: Annotated[
        float, Option(help="Delay between shots in µs. The default is IBM's default_rep_delay.")
    ] = 250.0,
    json: inputs.AsJson = False,
) -> None:
    """Print what the inference of one image would cost on hardware, layer by layer."""
    from json import dumps

    from qnad_art.circuits.response import READOUTS
    from qnad_art.network.module import QuantumExecutedModule
    from qnad_art.placement.plan import CrosstalkPlan
    from qnad_art.resources.inference_cost import inference_resources, random_plan
    from qnad_art.storage import PLAN

    if plan is not None and fraction is not None:
        raise InvalidInputError("--plan and --fraction both set the crosstalk; give one of them.")
    if pairs is not None and fraction is None:
        raise InvalidInputError("--pairs applies to the crosstalk of --fraction; give both.")
    made, shape = _network(network, model, _sizes(input_shape))
    own = made if isinstance(made, QuantumExecutedModule) else None
    readout = readout or ("twirled" if own is None else own.settings.readout)
    chosen = [name for name in READOUTS if name == readout]
    if not chosen:
        raise InvalidInputError(f"readout {readout!r} is not one of {', '.join(READOUTS)}.")
    profile = _device(own, device)
    crosstalk = None
    if plan is not None:
        crosstalk = CrosstalkPlan.load(plan / PLAN if plan.is_dir() else plan)
    elif fraction is not None:
        crosstalk = random_plan(
            made, profile, fraction=fraction, pairs=1 if pairs is None else pairs
        )
    elif own is not None and own.plan.injected and own.device_profile.name != profile.name:
        typer.echo(
            f"The folder's crosstalk is for {own.device_profile.name} and is not counted; "
            f"--fraction puts crosstalk on {profile.name}.",
            err=True,
        )
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
    """Parse a shape such as ``1x28x28`` into arguments of build_model."""
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
    """Load the network, plain or quantum-executed; also return the shape of an input."""
    from qnad_art.models.architectures import architecture_of, build_model, model_names
    from qnad_art.models.weights import load_model

    if Path(name).is_dir() and name not in model_names():
        if sizes:
            raise InvalidInputError(f"{name} is a folder, which has its own input shape.")
        classifier = inputs.load_hardened(Path(name), model)
        return classifier.module, tuple(classifier.input_shape)
    if name.endswith(".safetensors") or Path(name).is_file():
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


def _device(hardened: QuantumExecutedModule | None, name: str | None) -> DeviceProfile:
    """Load the device of that name; the default is the one of a hardened network."""
    from qnad_art.device.catalogue import device_names, load_device
    from qnad_art.device.profile import DEFAULT_DEVICE

    if name is not None or hardened is None:
        return load_device(name or DEFAULT_DEVICE)
    own = hardened.device_profile
    if own.name in device_names():
        # Folders of earlier versions do not say how long a readout takes.
        same = load_device(own.name)
        return same if same.hash == own.hash else own
    return own
