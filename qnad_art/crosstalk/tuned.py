"""Tuned crosstalk: codewords chosen by gradients to hold against attacks, weights frozen.

The unknowns are the effective weights that the critical weights should have under crosstalk. Each
forward pass gives every weight the codeword that comes nearest, nothing but what the device can
do, and the gradient passes straight through that choice. The adversarial examples are made on the
hardened network itself, step by step (:mod:`qnad_art.training.adversarial`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.lever import check_lever
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import MAX_PAIRS
from qnad_art.crosstalk.codebook import MAX_TURN, TOLERANCE, Words, build_codebook
from qnad_art.crosstalk.criticality import FRACTION, Scope, select_critical, weight_gradients
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError, QnadWarning
from qnad_art.layers.kernels import weight_angles
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.network.modes import evaluating
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan, placed_layers
from qnad_art.placement.time_steps import settled
from qnad_art.training.adversarial import LATER, AdversarialSettings, perturb, split_validation
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.execution import Circuits

RANKED_IMAGES = 2000
"""Criticality is ranked on so many training images."""


@dataclass(frozen=True)
class Tuned(AdversarialSettings):
    """Gradient-tuned crosstalk on the most critical weights.

    Args:
        fraction: of the weights, in [0, 1], ranked by |∂L/∂w|.
        max_pairs: of a codeword; ``None`` means as many as the module's table has.
        max_turn: angle in rad by which a codeword may turn a weight's phase at most. ``None`` means
            1.2 under crosstalk models in time and no limit under ``paper``.
        codebook: what a weight may choose from: ``"all"`` edges, one hop and spectator, of all
            compute qubits; only the ``"one-hop"`` ones; or only the edge it was ``"placed"`` on.
            The choice among edges needs the placement's order ``"stretched"``; with another order
            a weight keeps the edge that it was placed on.
        ranked_on: rank weights on ``"adversarial"`` examples (PGD-5, ε) or ``"clean"`` images.
        refresh: rank again, on the network as tuned so far, so many times (at most once an epoch),
            evenly over the first half of the epochs; weights that are critical no more lose their
            crosstalk.
        scope: see :func:`~qnad_art.crosstalk.criticality.select_critical`.

    The others are those of :class:`~qnad_art.training.adversarial.AdversarialSettings`; the
    learning rate is in units of s_w.
    """

    fraction: float = FRACTION
    max_pairs: int | None = None
    max_turn: float | None = field(default=None, metadata=LATER)
    codebook: Words = "all"
    ranked_on: Literal["adversarial", "clean"] = "adversarial"
    refresh: int = 0
    scope: Scope = "balanced"

    name = "tuned"
    takes: ClassVar[frozenset[str]] = frozenset(
        {"seed", "max_pairs", "clip", "mean", "std"}
        | {"checkpoint", "resume", "on_epoch", "on_step"}
    )
    prefers: ClassVar[Mapping[str, Any]] = MappingProxyType({"bias": "quantum"})
    """Crosstalk can move biases that run as products."""
    ranks: ClassVar[bool] = False
    """It makes its own adversarial examples, of the network as it is at every step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_pairs is not None and (type(self.max_pairs) is not int or self.max_pairs < 1):
            raise InvalidInputError(
                f"max_pairs is {self.max_pairs!r}; it must be a whole number from 1."
            )
        if type(self.refresh) is not int or self.refresh < 0:
            raise InvalidInputError(
                f"refresh is {self.refresh!r}; it must be a whole number from 0."
            )
        if self.ranked_on not in ("adversarial", "clean"):
            raise InvalidInputError(
                f"ranked_on is {self.ranked_on!r}; it must be 'adversarial' or 'clean'."
            )

    def check_device(self, device: DeviceProfile, sites: Sequence[Site]) -> None:
        """Raise DeviceError if no crosstalk can turn a weight there, and warn if it turns little.

        :class:`~qnad_art.QNAD` calls this before it converts a network, and :meth:`plan` calls it.
        """
        usable = [site for site in sites if self.codebook != "one-hop" or site.partner is None]
        limit = self.turn_limit(device)
        check_lever(
            device, usable, max_pairs=min(self.max_pairs or MAX_PAIRS, MAX_PAIRS), max_turn=limit
        )

    def turn_limit(self, device: DeviceProfile) -> float | None:
        """``max_turn``, or what suits the crosstalk model of the device."""
        if self.max_turn is not None:
            return self.max_turn
        return MAX_TURN if crosstalk_model(device).timed else None

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Tune on inputs ``x`` (N, …) and class indices ``y`` (N,); ``module`` is left as it is.

        If the module is under a crosstalk plan, tuning starts from that: from the effective weights
        that it gives, on the weights that it is on.
        """
        if self.max_pairs is None:
            return replace(self, max_pairs=module.execution.table.max_pairs).plan(module, x, y)
        self.check_device(module.device_profile, module.placement.sites)
        best = self.loop(module, x, y).run()
        plan = CrosstalkPlan(
            module.device_profile.name,
            module.device_profile.hash,
            module.placement.sites,
            {
                name: LayerPlan(
                    *settled(
                        module.placement, best[f"{name}.site"].cpu(), best[f"{name}.pairs"].cpu()
                    )
                )
                for name in module.layers
            },
            strategy=self.name,
            requested=self.fraction,
            settings=self.recorded(),
        )
        if not plan.injected:
            warnings.warn(
                "Tuning ended without any crosstalk: no weight came near a codeword. Take more "
                "images or epochs, or a higher learning rate.",
                QnadWarning,
                stacklevel=2,
            )
        return plan

    def loop(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> AdversarialLoop:
        """The optimisation of :meth:`plan`, on a copy of ``module``, ready to run."""
        most = module.execution.table.max_pairs
        if self.max_pairs is not None and self.max_pairs > most:
            raise InvalidInputError(
                f"max_pairs is {self.max_pairs}, but the module's table ends at {most}: convert "
                f"with max_pairs={self.max_pairs}."
            )
        training, validation = split_validation(x, y, self)
        module = copy.deepcopy(module).requires_grad_(False)
        some = tuple(tensor[:RANKED_IMAGES] for tensor in training)
        unknowns = _EffectiveWeights(module, self, *some)
        return AdversarialLoop(
            module, unknowns, training, validation, self, before_epoch=unknowns.before_epoch
        )


class _EffectiveWeights:
    """The unknowns: the effective weight (a2, in units of s_w) that each product should have.

    Where no crosstalk is wanted it is what the weight has without. Times the ``unit``, which is 1
    for weights and s_x for a bias, that of an input s_x: so one learning rate suits both.
    """

    def __init__(
        self, module: QuantumExecutedModule, settings: Tuned, x: Tensor, y: Tensor
    ) -> None:
        self.module, self.settings = module, settings
        self.execution = Circuits(module)
        place = next(module.parameters()).device
        self.ranked = x.to(place), y.to(place)
        choice = settings.codebook if module.placement.order == "stretched" else "placed"
        self.codebook = build_codebook(
            module.execution.table,
            words=choice,
            max_pairs=settings.max_pairs or module.execution.table.max_pairs,
            max_turn=settings.turn_limit(module.device_profile),
        ).to(place)
        self.angles = {
            name: weight_angles(layer.product_weights(), module.execution)
            for name, layer in module.layers.items()
        }
        self.units = {name: _units(layer) for name, layer in module.layers.items()}
        self.parameters = {
            name: torch.full_like(angle, torch.nan).requires_grad_()
            for name, angle in self.angles.items()
        }
        self.placed: dict[str, Tensor] = {}
        self.free: dict[str, Tensor] = {}
        self.idle: dict[str, Tensor] = {}
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}
        self.started = self._start(module.plan) if module.plan.injected else None
        self._rank(0)

    def before_epoch(self, epoch: int) -> None:
        """Rank again where ``refresh`` asks for it."""
        settings = self.settings
        half = max(settings.epochs // 2, 1)
        for number in range(1, settings.refresh + 1):
            if epoch == 1 + number * half // settings.refresh:
                self.install()
                self._rank(number)
                return

    @contextmanager
    def optimising(self) -> Iterator[None]:
        """Codewords installed, kernels differentiable in the effective weights."""
        self.install()
        try:
            for name, layer in self.module.layers.items():
                if layer.input_scale is not None:  # else the forward pass leaves the layer out
                    layer.tune(self.parameters[name] / self.units[name])
            yield
        finally:
            for layer in self.module.layers.values():
                layer.tune(None)

    def project(self) -> None:
        """Within what the codebook reaches; as without crosstalk where none is wanted."""
        for name, unknown in self.parameters.items():
            unit = self.units[name]
            torch.clamp(unknown, self.low[name] * unit, self.high[name] * unit, out=unknown)

    def install(self) -> None:
        """Give each layer its present codewords."""
        for name, layer in self.module.layers.items():
            layer.assign(*self._words(name))

    def result(self) -> dict[str, Tensor]:
        """Sites and pair counts."""
        result: dict[str, Tensor] = {}
        for name in self.parameters:
            result[f"{name}.site"], result[f"{name}.pairs"] = self._words(name)
        return result

    def state(self) -> dict[str, Tensor]:
        """Effective weights, placement and range."""
        return {f"{kind}.{name}": t for kind, part in self._parts() for name, t in part.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        with torch.no_grad():
            for kind, part in self._parts():
                for name, tensor in part.items():
                    tensor.copy_(state[f"{kind}.{name}"])

    def _parts(self) -> list[tuple[str, dict[str, Tensor]]]:
        parts = ("parameters", "placed", "free", "idle", "low", "high")
        return [(kind, getattr(self, kind)) for kind in parts]

    def _words(self, name: str) -> tuple[Tensor, Tensor]:
        """Codeword of every weight: site and pairs."""
        chosen = self.free[name].flatten().nonzero()[:, 0]
        wanted = (self.parameters[name] / self.units[name]).flatten()[chosen]
        parts = (self.angles, self.placed, self.idle)
        angle, placed, idle = (part[name].flatten()[chosen] for part in parts)
        near, count = self.codebook.nearest(wanted, angle, placed)
        moved = (wanted - idle).abs() > TOLERANCE
        site = self.placed[name].clone()
        pairs = torch.zeros_like(site, dtype=torch.int8)
        site.view(-1)[chosen] = torch.where(moved, near, placed)
        pairs.view(-1)[chosen] = torch.where(moved, count, 0)
        return site, pairs

    def _start(self, plan: CrosstalkPlan) -> dict[str, Tensor]:
        """Take over the effective weights of a plan; returns which weights have crosstalk."""
        table = self.module.execution.table
        response = torch.as_tensor(table.values[:, :, 2, 1:], dtype=torch.float32)
        words = {name: plan.words(part).cpu() for name, part in plan.layers.items()}
        for name, part in plan.layers.items():
            angle, unknown = self.angles[name], self.parameters[name]
            row = response[part.site.cpu().long(), part.pairs.cpu().long() + table.max_pairs]
            row = row.to(angle.device)
            given = row[..., 0] * angle.cos() + row[..., 1] * angle.sin()
            with torch.no_grad():
                given = given.to(unknown.dtype) * self.units[name]
                unknown.copy_(torch.where(words[name].to(angle.device), given, torch.nan))
        return words

    def _rank(self, number: int) -> None:
        """Choose the critical weights and their places; all others lose their crosstalk."""
        settings, table = self.settings, self.module.execution.table
        if number == 0 and self.started is not None:
            critical = self.started
            scores = {name: mask.float() for name, mask in critical.items()}
        else:
            scores = self._criticality(number)
            critical = select_critical(scores, settings.fraction, scope=settings.scope)
        layers = placed_layers(
            self.module.placement,
            critical,
            pairs=lambda served: torch.ones(served.shape),
            scores=scores,
        )
        idle = torch.as_tensor(table.values[:, table.max_pairs, 2, 1:], dtype=torch.float32)
        for name, part in layers.items():
            angle, unknown = self.angles[name], self.parameters[name]
            placed, free = part.site.to(angle.device), (part.pairs != 0).to(angle.device)
            row = idle.to(angle.device)[placed.long()]
            without = row[..., 0] * angle.cos() + row[..., 1] * angle.sin()
            low, high = self.codebook.limits(angle, placed)
            self.placed[name], self.free[name], self.idle[name] = placed, free, without
            self.low[name], self.high[name] = (
                torch.where(free, bound, without) for bound in (low, high)
            )
            with torch.no_grad():
                start = without * self.units[name]
                unknown.copy_(torch.where(unknown.isnan() | ~free, start, unknown))
        with torch.no_grad():
            self.project()

    def _criticality(self, number: int) -> dict[str, Tensor]:
        """Signed gradients of the weights, on adversarial examples (PGD-5) or clean images."""
        settings = self.settings
        x, y = self.ranked
        with evaluating(self.module):
            if settings.ranked_on == "adversarial":
                generator = torch.Generator(x.device).manual_seed(settings.seed + number)
                size = settings.batch_size  # all at once would need the memory of all
                batches = zip(x.split(size), y.split(size), strict=True)
                x = torch.cat([self._attacked(*batch, generator) for batch in batches])
            gradients = weight_gradients(self.module, x, y)
        return {name: gradient.cpu() for name, gradient in gradients.items()}

    def _attacked(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Adversarial examples (PGD-5) of the network as it is."""
        budget, clip = self.settings.in_units_of(x, self.settings.epsilon)
        return perturb(
            self.module,
            x,
            y,
            epsilon=budget,
            steps=5,
            clip=clip,
            generator=generator,
        )


def _units(layer: QuantumLayer) -> Tensor:
    """What the layer's products contribute for a weight of 1: ones, and about s_x for a bias."""
    units = torch.ones(layer.product_shape[1:], device=layer.weight.device)
    if layer.quantum_bias is not None:
        units[-1] = layer.bias_unit
    return units
