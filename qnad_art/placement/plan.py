"""The crosstalk plan: the site and the signed number of injected gate pairs of every weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import next_to, possible, word_cost
from qnad_art.circuits.product import Site
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import ArtifactError, DeviceError, InvalidInputError
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.placement.placement import Placement, with_sites
from qnad_art.placement.time_steps import settled

KIND = "crosstalk-plan"


@dataclass(frozen=True)
class LayerPlan:
    """The plan of one layer.

    ``site`` (int16) is an index into the plan's sites; ``pairs`` (int8) is the number of pairs with
    the polarity as sign. Both have the weight's shape, or (out, J + 1) if the bias runs as a
    product, which is then the last one.
    """

    site: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class CrosstalkPlan:
    """How much crosstalk each weight gets, and from which neighbour.

    Args:
        device, device_hash: the device for which the plan was made.
        sites: the sites behind the site indices of the layers.
        layers: one :class:`LayerPlan` per quantum-executed layer, by name.
        strategy: the strategy that made the plan; ``"none"`` means inherent noise only.
        requested: fraction of the weights that were to get crosstalk.
        settings: the settings of the strategy (plain JSON).
    """

    device: str
    device_hash: str
    sites: tuple[Site, ...]
    layers: Mapping[str, LayerPlan]
    strategy: str = "none"
    requested: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> int:
        """Number of weights in all layers."""
        return sum(layer.pairs.numel() for layer in self.layers.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's products."""
        return {name: tuple(layer.pairs.shape) for name, layer in self.layers.items()}

    @property
    def injected(self) -> int:
        """Number of weights under crosstalk."""
        return sum(int(self.words(layer).sum()) for layer in self.layers.values())

    def words(self, layer: LayerPlan) -> Tensor:
        """Where a layer's weights have a word of their own, bool in the weight's shape."""
        own = torch.tensor([s.neighbour is not None and s.next_to is None for s in self.sites])
        return (layer.pairs != 0) & own.to(layer.site.device)[layer.site.long()]

    @property
    def achieved(self) -> float:
        """Fraction of weights under crosstalk, below ``requested`` if neighbours were missing."""
        return self.injected / max(self.weights, 1)

    @property
    def unserved(self) -> int:
        """Number of weights that were to get crosstalk and did not, say for want of a neighbour."""
        return max(round(self.requested * self.weights) - self.injected, 0)

    def placement(self, device: DeviceProfile) -> Placement:
        """The placement to which the sites belong, on the plan's own ``device``."""
        self.check_device(device)
        compute = tuple(site.qubit for site in self.sites if site.neighbour is None)
        return with_sites(Placement(compute, ()), device, self.sites)

    def added_gates(self) -> int:
        """Number of injected two-qubit gates, counting each weight once."""
        gates = torch.tensor([2 * (s.kind == "pairs" and s.next_to is None) for s in self.sites])
        return sum(
            int((layer.pairs.long().abs() * gates[layer.site.long()]).sum())
            for layer in self.layers.values()
        )

    def added_seconds(self, device: DeviceProfile) -> float:
        """Circuit time in seconds that injection adds, counting each weight once."""
        self.check_device(device)
        costs = [word_cost(device, site) for site in self.sites]
        unit = torch.tensor([cost.unit_seconds for cost in costs], dtype=torch.float64)
        edge = torch.tensor([cost.edge_seconds for cost in costs], dtype=torch.float64)
        total = 0.0
        for layer in self.layers.values():
            words = self.words(layer)
            site, pairs = layer.site.long()[words], layer.pairs.double()[words]
            total += float((pairs.abs() * unit[site] + edge[site, (pairs < 0).long()]).sum())
        return total

    def histogram(self) -> dict[str, dict[int, int]]:
        """For each layer, the number of weights at each signed count of a word of their own."""
        result = {}
        for name, layer in self.layers.items():
            own = torch.where(self.words(layer), layer.pairs, 0)
            counts, numbers = torch.unique(own, return_counts=True)
            result[name] = dict(zip(counts.tolist(), numbers.tolist(), strict=True))
        return result

    def check_device(self, device: DeviceProfile) -> None:
        """Raise :class:`~qnad_art.errors.InvalidInputError` if the plan is for another device."""
        if device.hash != self.device_hash:
            raise InvalidInputError(
                f"The plan was made for {self.device} ({self.device_hash[:12]}), not for "
                f"{device.name} ({device.hash[:12]}). Make a plan for that device, or carry the "
                "hardened classifier to it with on(device)."
            )

    def on(self, device: DeviceProfile) -> CrosstalkPlan:
        """The same crosstalk, gate for gate, on another calibration or device.

        Words whose qubits or edges ``device`` lacks are left out, and products on a qubit that it
        lacks move to another. A wait takes the time that ``device`` says, see
        :meth:`~qnad_art.device.profile.DeviceProfile.programmed_as`.

        Raises:
            DeviceError: no compute qubit of the plan is left.
        """
        kept = tuple(s for s in self.sites if s.next_to is None and possible(device, s))
        compute = [site.qubit for site in kept if site.neighbour is None]
        if not compute:
            raise DeviceError(
                f"{device.name} has none of the compute qubits of a plan for {self.device}: "
                f"{sorted({site.qubit for site in self.sites})}."
            )
        if crosstalk_model(device).timed:
            met = [other for site in kept for other in next_to(device, compute, site)]
            kept = (*kept, *met)
        number = {site: index for index, site in enumerate(kept)}
        plain = [
            number.get(Site(site.qubit), number[Site(compute[site.qubit % len(compute)])])
            for site in self.sites
        ]
        there = torch.tensor([number.get(site, -1) for site in self.sites])
        placement = with_sites(Placement(tuple(compute), (), "stretched"), device, kept)
        layers = {}
        for name, layer in self.layers.items():
            site = layer.site.long()
            word = self.words(layer) & (there[site] >= 0)
            moved = torch.where(word, there[site], torch.tensor(plain)[site]).to(torch.int16)
            layers[name] = LayerPlan(*settled(placement, moved, torch.where(word, layer.pairs, 0)))
        return replace(self, device=device.name, device_hash=device.hash, sites=kept, layers=layers)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with a JSON header, atomically."""
        tensors = {}
        for name, layer in self.layers.items():
            tensors[f"{name}.site"], tensors[f"{name}.pairs"] = layer.site, layer.pairs
        header = {
            "device": self.device,
            "device_hash": self.device_hash,
            "sites": [site.to_json() for site in self.sites],
            "strategy": self.strategy,
            "requested": self.requested,
            "settings": dict(self.settings),
            "layers": list(self.layers),
        }
        save_tensors(Path(path), tensors, kind=KIND, header=header)

    @classmethod
    def load(cls, path: str | Path) -> CrosstalkPlan:
        """Read a plan; raises :class:`~qnad_art.errors.ArtifactError` if the file is not valid."""
        tensors, header = load_tensors(Path(path), kind=KIND)
        try:
            sites = tuple(map(Site.from_json, header["sites"]))
            layers = {
                name: LayerPlan(tensors[f"{name}.site"], tensors[f"{name}.pairs"])
                for name in header["layers"]
            }
            plan = cls(
                device=str(header["device"]),
                device_hash=str(header["device_hash"]),
                sites=sites,
                layers=layers,
                strategy=str(header["strategy"]),
                requested=float(header["requested"]),
                settings=dict(header["settings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is not a complete crosstalk plan: {error!r}.") from error
        try:
            plan.check()
        except InvalidInputError as error:
            raise ArtifactError(f"{path}: {error}") from error
        return plan

    def check(self) -> None:
        """Raise :class:`~qnad_art.errors.InvalidInputError` if sites or pairs are inconsistent."""
        injectable = torch.tensor([site.neighbour is not None for site in self.sites])
        for name, layer in self.layers.items():
            site = layer.site.long()
            if layer.site.shape != layer.pairs.shape or (
                site.numel() and not 0 <= int(site.min()) <= int(site.max()) < len(self.sites)
            ):
                raise InvalidInputError(f"Layer {name!r} has site indices that do not exist.")
            if bool((layer.pairs[~injectable[site]] != 0).any()):
                raise InvalidInputError(
                    f"Layer {name!r} has injected pairs at sites without a neighbour."
                )


def inherent_plan(
    device: DeviceProfile, placement: Placement, shapes: Mapping[str, tuple[int, ...]]
) -> CrosstalkPlan:
    """The plan without crosstalk: products run on their compute qubits with inherent noise only."""
    none = torch.zeros((), dtype=torch.int8)
    layers = {
        name: LayerPlan(placement.plain_sites(shape), none.expand(shape))
        for name, shape in shapes.items()
    }
    return CrosstalkPlan(device.name, device.hash, placement.sites, layers)


def placed_plan(
    device: DeviceProfile,
    placement: Placement,
    critical: Mapping[str, Tensor],
    *,
    pairs: Callable[[Tensor], Tensor],
    strategy: str,
    requested: float,
    scores: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> CrosstalkPlan:
    """Place critical weights and inject where a neighbour is found (Algorithm 1 from line 2 on).

    Args:
        critical: for each layer a bool tensor in the weight's shape.
        pairs: function that returns the signed pair counts of a layer. Its argument is True where
            a neighbour was found (bool, in the weight's shape).
        scores: for each layer the criticality, whose absolute value counts; see
            :meth:`~qnad_art.placement.placement.Placement.place`.
        strategy, requested, settings: values to record in the plan.
    """
    layers = {
        name: LayerPlan(*settled(placement, layer.site, layer.pairs))
        for name, layer in placed_layers(placement, critical, pairs=pairs, scores=scores).items()
    }
    return CrosstalkPlan(
        device.name,
        device.hash,
        placement.sites,
        layers,
        strategy=strategy,
        requested=requested,
        settings=dict(settings),
    )


def placed_layers(
    placement: Placement,
    critical: Mapping[str, Tensor],
    *,
    pairs: Callable[[Tensor], Tensor],
    scores: Mapping[str, Tensor],
) -> dict[str, LayerPlan]:
    """The layers of :func:`placed_plan`, whose other products have yet to meet the words."""
    injectable = torch.tensor([site.neighbour is not None for site in placement.sites])
    layers = {}
    for name, wanted in critical.items():
        site = placement.place(wanted, scores[name].abs())
        served = injectable[site.long()]
        layers[name] = LayerPlan(site, torch.where(served, pairs(served), 0).to(torch.int8))
    return layers
