"""Torch model → quantum-executed model, with a report on its layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qnad_art.circuits.response import response_table
from qnad_art.device.catalogue import load_device
from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import Execution
from qnad_art.layers.linear_and_conv import QUANTUM_CLASSES
from qnad_art.layers.mappings import load_mapping
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.layers.speed.batch_norm import fold_batch_norm
from qnad_art.layers.speed.pooling import replace_pooling
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.network.settings import ExecutionSettings

if TYPE_CHECKING:
    from rich.table import Table


# Tensors made in inference mode have no version, by which the layers notice changed weights.
@torch.inference_mode(False)
def convert(
    model: nn.Module,
    calibration: Tensor | npt.NDArray[np.floating] | None = None,
    *,
    settings: ExecutionSettings | None = None,
    **changes: Any,
) -> QuantumExecutedModule:
    """Copy ``model`` with every Conv1d, Conv2d and Linear run as noisy quantum circuits.

    Args:
        model: any module; it does not change.
        calibration: inputs (N, …) that set the activation scales: a few hundred training images.
            Without them, call ``calibrate`` on the result before running it.
        settings: settings of the execution; ``None`` means the defaults.
        **changes: settings by name (``device="ibm_lagos", shots=1024``), which override those of
            ``settings``; see :class:`~qnad_art.network.settings.ExecutionSettings`.

    Raises:
        InvalidInputError: there is no layer to convert, or a setting is out of range.
        UnknownNameError: a setting does not exist.
    """
    settings = ExecutionSettings.of(settings, **changes)
    if settings.allocation == "margin":
        raise InvalidInputError(
            "convert runs every product with the same shots; call "
            "qnad_art.engines.shot_allocation.allocate_shots(module, x) on the result."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInputError(
            "model is TorchScript, whose layers cannot be replaced; convert the network from which "
            "it was traced or scripted."
        )
    profile = load_device(settings.device)
    placement = settings.placement(profile)
    table = response_table(
        profile, placement.sites, max_pairs=settings.pairs_on(profile), readout=settings.readout
    )
    execution = Execution(
        table,
        settings.shots,
        settings.gain,
        settings.headroom,
        settings.bias or "classical",
        mapping=load_mapping(settings.mapping),
    )
    chosen = _chosen_layers(model, settings.include, settings.exclude)
    network, noise = copy.deepcopy(model), NoiseSource(settings.seed)
    for name in chosen:
        layer = network.get_submodule(name)
        layer.__class__ = QUANTUM_CLASSES[type(layer)]
        assert isinstance(layer, QuantumLayer)
        layer.execute_as(execution, noise)
    replace_pooling(network)
    fold_batch_norm(network)
    for part in network.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            # Its fused path in eval mode would use the weights without calling the layers.
            part.activation_relu_or_gelu = 0
    module = QuantumExecutedModule(
        network, device=profile, placement=placement, execution=execution, noise=noise
    )
    module.training = model.training
    if calibration is not None:
        data = torch.as_tensor(calibration)
        if data.dtype == torch.uint8:  # These are images; tokens are int64.
            data = data.float()
        module.calibrate(data, percentile=settings.percentile)
    return module


def _chosen_layers(network: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Names of the layers to convert.

    Subclasses of a plain layer are not converted, because they may compute something else.

    Raises:
        InvalidInputError: there is no layer to convert, or one of them cannot be converted.
    """

    def matches(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    for name, module in network.named_modules():
        if isinstance(module, QuantumLayer):
            raise InvalidInputError(f"{name} is already quantum-executed; convert the plain model.")
    chosen = {
        name: module
        for name, module in network.named_modules()
        if type(module) in QUANTUM_CLASSES and matches(name, include) and not matches(name, exclude)
    }
    if not chosen:
        raise InvalidInputError(
            f"No Conv1d, Conv2d or Linear layer matches include={list(include)} and "
            f"exclude={list(exclude)}."
        )
    for name, module in chosen.items():
        if "weight" not in dict(module.named_parameters(recurse=False)):
            raise InvalidInputError(
                f"The weight of {name!r} is not a parameter but computed in every pass (pruning, "
                "spectral or weight norm); make it one first: torch.nn.utils.prune.remove(layer, "
                "'weight'), remove_spectral_norm(layer) or remove_weight_norm(layer)."
            )
    return list(chosen)


@dataclass(frozen=True)
class LayerReport:
    """One layer with parameters.

    ``products`` is their number per image, ``scale`` is s_x, and ``clipped`` is the fraction of the
    calibration's activations beyond it. They are ``None`` for a layer that remains classical.
    """

    name: str
    kind: str
    weights: int
    quantum: bool
    products: int | None = None
    scale: float | None = None
    clipped: float | None = None


@dataclass(frozen=True)
class ConversionReport:
    """Which layers are quantum-executed, and the number of products per image."""

    device: str
    layers: tuple[LayerReport, ...]

    @property
    def products(self) -> int:
        """Number of products (circuits) per image."""
        return sum(layer.products or 0 for layer in self.layers)

    def __str__(self) -> str:
        """The table as text, 100 characters wide."""
        from io import StringIO

        from rich.console import Console

        text = StringIO()
        Console(file=text, width=100).print(self)
        return text.getvalue().rstrip()

    def __rich__(self) -> Table:
        """The table, for rich."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(
            box=SIMPLE_HEAD,  # Layers of millions of weights fit into 80 columns.
            show_edge=False,
            title=f"Quantum execution on {self.device}: {self.products:,} products per image",
        )
        for heading in ("layer", "kind", "weights", "runs", "products", "scale s_x", "clipped"):
            table.add_column(heading, justify="left" if heading in ("layer", "kind") else "right")
        for layer in self.layers:
            table.add_row(
                layer.name,
                layer.kind,
                f"{layer.weights:,}",
                "quantum" if layer.quantum else "classical",
                "" if layer.products is None else f"{layer.products:,}",
                "" if layer.scale is None else f"{layer.scale:.4g}",
                "" if layer.clipped is None else f"{layer.clipped:.2%}",
            )
        return table


def conversion_report(
    module: QuantumExecutedModule, x: Tensor | npt.NDArray[np.floating]
) -> ConversionReport:
    """Report on a converted module; ``x`` (at least one input) sets the layers' input shapes."""
    products = module.products(torch.as_tensor(x))
    rows = []
    for name, part in module.network.named_modules():
        if isinstance(part, QuantumLayer):
            kind, weights = type(part).__name__.removeprefix("Quantum"), part.weight.numel()
            costs = products.get(name, 0), part.input_scale, part.clipped
            rows.append(LayerReport(name, kind, weights, True, *costs))
        elif own := sum(p.numel() for p in part.parameters(recurse=False)):
            rows.append(LayerReport(name, type(part).__name__, own, False))
    return ConversionReport(module.device_profile.name, tuple(rows))
