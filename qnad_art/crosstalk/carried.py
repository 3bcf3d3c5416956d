"""A hardened network on another calibration of its device, or on another device.

A plan holds words: sites and counts. On another calibration the same words turn the weights by
other angles. Either they are played as they are (*kept*: what happens when a device drifts and
nobody notices), or they are chosen anew (*re-encoded*) for the effective weights that they gave:
that takes the table of the device and a look-up for every weight, no training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import possible
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import ResponseTable, response_table
from qnad_art.circuits.words import wait_seconds
from qnad_art.crosstalk.codebook import MAX_TURN, build_codebook
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import DeviceError, InvalidInputError
from qnad_art.layers.kernels import contraction, weight_angles
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.placement import Placement, device_placement, with_sites
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan, placed_layers
from qnad_art.placement.time_steps import settled

WordsOnward = Literal["re-encoded", "kept"]
GainOnward = Literal["recalibrated", "kept"]
_CHOICES = (("re-encoded", "recalibrated"), ("kept", "recalibrated"), ("kept", "kept"))
ROUNDS = 2
"""The wanted weights depend on the mean contraction under the words that are chosen for them."""


@dataclass(frozen=True)
class Carried:
    """A network carried to another device.

    Args:
        module: the network there; the one that was given is unchanged.
        gone: qubits and edges in use that the other device lacks, in words.
        words: weights under crosstalk before.
        lost: of these, how many have none any more.
    """

    module: QuantumExecutedModule
    gone: tuple[str, ...]
    words: int
    lost: int


def carried(
    module: QuantumExecutedModule,
    device: DeviceLike,
    *,
    words: WordsOnward = "re-encoded",
    gain: GainOnward = "recalibrated",
) -> Carried:
    """``module`` on another calibration of its device, or on another device.

    Args:
        module: any, under a plan or without.
        device: see :func:`~qnad_art.device.catalogue.load_device`.
        words: ``"re-encoded"`` chooses the codewords anew, for the same effective weights;
            ``"kept"`` plays the same ones, with waits as long as before.
        gain: whether gain and offset of the sums are ``"recalibrated"`` on ``device`` or ``"kept"``
            from before (only with words that are kept).

    Raises:
        DeviceError: the device lacks all compute qubits.
        InvalidInputError: a choice does not exist.
    """
    if (words, gain) not in _CHOICES:
        raise InvalidInputError(
            f"words={words!r} with gain={gain!r} is not possible. Valid: "
            + ", ".join(f"words={w!r} with gain={g!r}" for w, g in _CHOICES)
            + "."
        )
    profile, plan = load_device(device), module.plan
    before = module.device_profile
    if words == "kept":
        profile = profile.programmed_as(programmed_waits(before))
        plan = plan.on(profile)
        compute = tuple(site.qubit for site in plan.sites if site.neighbour is None)
        placement = replace(module.placement, compute=compute)
        made = _moved(module, profile, with_sites(placement, profile, plan.sites))
        if gain == "kept":
            made.execution = replace(made.execution, calibrated=_table(module, before, made))
    else:
        made = _moved(module, profile, _placement_there(module, profile))
        plan = _re_encoded(module, made) if plan.injected else made.plan
    made.plan = plan
    uses = zip(module.plan.sites, _uses(module.plan), strict=True)
    used = {site for site, count in uses if count and site.next_to is None}
    gone = tuple(_named(s) for s in sorted(used, key=str) if not possible(profile, s))
    lost = module.plan.injected - plan.injected
    return Carried(made, gone, module.plan.injected, max(lost, 0))


def programmed_waits(device: DeviceProfile) -> dict[tuple[int, int], float]:
    """Seconds that a unit of waiting lasts on every edge that has a lever."""
    model = crosstalk_model(device)
    if not model.timed:
        return {}
    pairs = [(edge.control, edge.target) for edge in device.edges]
    found = {pair: wait_seconds(device, *pair, model=model) for pair in pairs}
    return {pair: seconds for pair, seconds in found.items() if seconds is not None}


def _moved(
    module: QuantumExecutedModule, device: DeviceProfile, placement: Placement
) -> QuantumExecutedModule:
    """A copy that runs on ``device`` without crosstalk, with the scales of before."""
    made = copy.deepcopy(module)
    made.device_profile, made.placement = device, placement
    made.execution = replace(module.execution, table=_table(module, device, made), calibrated=None)
    made.remove_crosstalk()
    return made


def _table(
    module: QuantumExecutedModule, device: DeviceProfile, made: QuantumExecutedModule
) -> ResponseTable:
    """The response of ``device`` at the sites of ``made``."""
    table = module.execution.table
    return response_table(
        device, made.placement.sites, max_pairs=table.max_pairs, readout=table.readout
    )


def _placement_there(module: QuantumExecutedModule, device: DeviceProfile) -> Placement:
    """The compute qubits of before that ``device`` has, with all their sites."""
    before = module.placement
    compute = [q for q in before.compute if q < len(device.qubits) and device.neighbours[q]]
    if not compute:
        raise DeviceError(
            f"{device.name} has none of the compute qubits {before.compute} of "
            f"{module.device_profile.name}; harden the network for it."
        )
    return device_placement(device, compute=compute, order=before.order, echo=before.echo)


def _re_encoded(module: QuantumExecutedModule, made: QuantumExecutedModule) -> CrosstalkPlan:
    """A plan for ``made`` whose words give the weights of ``module``."""
    plan, table, settings = module.plan, made.execution.table, module.plan.settings
    limit = settings.get("max_turn")
    if limit is None and crosstalk_model(made.device_profile).timed:
        limit = MAX_TURN
    codebook = build_codebook(
        table,
        words=settings.get("codebook", "all") if made.placement.order == "stretched" else "placed",
        max_pairs=min(settings.get("max_pairs", table.max_pairs), table.max_pairs),
        max_turn=limit,
    )
    masks = {name: plan.words(part).cpu() for name, part in plan.layers.items()}
    placed = placed_layers(
        made.placement,
        masks,
        pairs=lambda served: torch.ones(served.shape),
        scores={name: mask.float() for name, mask in masks.items()},
    )
    layers = {}
    for name, layer in module.layers.items():
        angle = weight_angles(layer.product_weights(), module.execution).cpu()
        effective = _effective(layer, angle)
        site = placed[name].site
        pairs = torch.zeros_like(placed[name].pairs)
        for _ in range(ROUNDS):
            gains = contraction(site.flatten(1), pairs.flatten(1), made.execution)
            wanted = effective * gains.view(-1, *[1] * (effective.dim() - 1))
            near, count = codebook.nearest(wanted, angle, placed[name].site)
            chosen = masks[name] & (placed[name].pairs != 0)
            site = torch.where(chosen, near, placed[name].site)
            pairs = torch.where(chosen, count, torch.zeros_like(count))
        layers[name] = LayerPlan(*settled(made.placement, site, pairs))
    return replace(
        plan,
        device=made.device_profile.name,
        device_hash=made.device_profile.hash,
        sites=made.placement.sites,
        layers=layers,
    )


def _effective(layer: QuantumLayer, angle: Tensor) -> Tensor:
    """What the weights of a layer act as, in units of s_w: a2 over the mean contraction."""
    table, site, pairs = layer.execution.table, layer.site.cpu(), layer.pairs.cpu()
    response = torch.as_tensor(table.values[:, :, 2, 1:], dtype=torch.float32)
    row = response[site.long(), pairs.long() + table.max_pairs]
    gains = contraction(site.flatten(1), pairs.flatten(1), layer.execution)
    a2 = row[..., 0] * angle.cos() + row[..., 1] * angle.sin()
    return a2 / gains.view(-1, *[1] * (angle.dim() - 1))


def _uses(plan: CrosstalkPlan) -> list[int]:
    """How many products run on every site of a plan."""
    total = torch.zeros(len(plan.sites), dtype=torch.int64)
    for layer in plan.layers.values():
        total += torch.bincount(layer.site.long().flatten().cpu(), minlength=len(plan.sites))
    return total.tolist()


def _named(site: Site) -> str:
    """A site in words: its qubits, with the edges between them."""
    return "qubit " + "–".join(str(qubit) for qubit in site.qubits)
