"""Tuned crosstalk: integer pair counts optimised by gradients against attacks, weights frozen.

The unknowns are signed pair counts of the critical weights, nothing but what the device can do.
They are real numbers while they are optimised (Adam); each forward pass rounds them, and the
gradient passes straight through the rounding with the slope of the response table between
integers. The adversarial examples are made on the hardened network itself, step by step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qnad_art.criticality import Scope, select_critical, weight_gradients
from qnad_art.crosstalk.plan import CrosstalkPlan, LayerPlan, placed_plan
from qnad_art.errors import InvalidInputError
from qnad_art.module import QuantumExecutedModule, evaluating


@dataclass(frozen=True)
class TuningEpoch:
    """One epoch of tuning: accuracies in [0, 1] on the validation split (``loss`` on training)."""

    epoch: int
    epochs: int
    loss: float
    clean: float
    robust: float


@dataclass(frozen=True)
class Tuned:
    """Gradient-tuned pair counts on the most critical weights.

    Args:
        fraction: of the weights, in [0, 1], ranked by |∂L/∂w| on adversarial examples.
        max_pairs: counts lie in [-max_pairs, max_pairs] (at most the module's table).
        epsilon: L∞ budget of the attack in training, in units of the network's input; it grows
            from 0 over the first third of the epochs.
        attack_steps: 1 is FGSM with a random start, more is PGD.
        robust_weight: in [0, 1], of the adversarial loss against the clean one.
        epochs, batch_size, learning_rate: of Adam, with a cosine schedule; the rate is in pairs.
        clip: smallest and largest input value.
        validation_fraction: of the inputs, kept apart; the epoch with the best sum of clean and
            robust validation accuracy (PGD-10), weighted as the losses, is the result.
        scope: rank all weights together or layer by layer.
        seed: of batches and random starts.
        on_epoch: called after every epoch.
    """

    fraction: float = 0.3
    max_pairs: int = 8
    epsilon: float = 0.3
    attack_steps: int = 3
    robust_weight: float = 0.7
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.1
    clip: tuple[float, float] = (0.0, 1.0)
    validation_fraction: float = 0.1
    scope: Scope = "layer"
    seed: int = 0
    on_epoch: Callable[[TuningEpoch], None] | None = None

    name = "tuned"

    def __post_init__(self) -> None:
        for setting, smallest in (("max_pairs", 1), ("attack_steps", 1), ("epochs", 1)):
            value = getattr(self, setting)
            if not isinstance(value, int) or value < smallest:
                raise InvalidInputError(
                    f"{setting} is {value!r}; it must be a whole number from {smallest}."
                )
        if not self.epsilon > 0 or not self.learning_rate > 0:
            raise InvalidInputError("epsilon and learning_rate must be above 0.")
        if not 0 <= self.robust_weight <= 1:
            raise InvalidInputError(f"robust_weight is {self.robust_weight}; valid: 0 to 1.")
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(
                f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1."
            )

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """Tune on inputs ``x`` (N, …) and class indices ``y`` (N,); ``module`` is left as it is."""
        if self.max_pairs > module.execution.table.max_pairs:
            raise InvalidInputError(
                f"max_pairs is {self.max_pairs}, but the module's table ends at "
                f"{module.execution.table.max_pairs}: convert with max_pairs={self.max_pairs}."
            )
        held = max(1, round(self.validation_fraction * len(x)))
        if len(x) <= held:
            raise InvalidInputError(f"{len(x)} inputs are too few to tune and to validate on.")
        return _Tuner(self, copy.deepcopy(module), x[held:], y[held:], x[:held], y[:held]).run()


class _Tuner:
    """One tuning run on a module of its own."""

    def __init__(
        self,
        settings: Tuned,
        module: QuantumExecutedModule,
        x: Tensor,
        y: Tensor,
        held_x: Tensor,
        held_y: Tensor,
    ) -> None:
        self.settings, self.module = settings, module
        self.place = next(module.parameters()).device
        self.x, self.y, self.held_x, self.held_y = (
            tensor.to(self.place) for tensor in (x, y, held_x, held_y)
        )
        self.generator = torch.Generator(self.place).manual_seed(settings.seed)
        for parameter in module.parameters():
            parameter.requires_grad_(False)

    def run(self) -> CrosstalkPlan:
        with evaluating(self.module):
            plan = self._placed()
            self.module.plan = plan
            self.counts = {
                name: torch.zeros_like(layer.weight, dtype=torch.float32).requires_grad_()
                for name, layer in self.module.layers.items()
            }
            self.free = {
                name: (part.pairs != 0).to(self.place) for name, part in plan.layers.items()
            }
            best, best_score = self._rounded(), -1.0
            for result in self._epochs():
                if self.settings.on_epoch is not None:
                    self.settings.on_epoch(result)
                weight = self.settings.robust_weight
                score = weight * result.robust + (1 - weight) * result.clean
                if score > best_score:
                    best, best_score = self._rounded(), score
        return CrosstalkPlan(
            plan.device,
            plan.device_hash,
            plan.sites,
            {name: LayerPlan(part.site, best[name].cpu()) for name, part in plan.layers.items()},
            strategy=self.settings.name,
            requested=self.settings.fraction,
            settings=self._recorded(),
        )

    def _placed(self) -> CrosstalkPlan:
        """Sites of the critical weights, ranked on adversarial examples; one pair on each."""
        some = slice(0, 1000)
        adversarial = self._attack(self.x[some], self.y[some], self.settings.epsilon, steps=5)
        gradients = weight_gradients(self.module, adversarial, self.y[some])
        scores = {name: gradient.cpu() for name, gradient in gradients.items()}
        return placed_plan(
            self.module.device_profile,
            self.module.placement,
            select_critical(scores, self.settings.fraction, scope=self.settings.scope),
            pairs=lambda served: torch.ones(served.shape),
            strategy=self.settings.name,
            requested=self.settings.fraction,
            scores=scores,
            settings=self._recorded(),
        )

    def _epochs(self) -> Iterator[TuningEpoch]:
        settings = self.settings
        optimizer = torch.optim.Adam(self.counts.values(), lr=settings.learning_rate)
        batches = -(-len(self.x) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * batches)
        for epoch in range(1, settings.epochs + 1):
            epsilon = settings.epsilon * min(1.0, 3 * epoch / settings.epochs)
            order = torch.randperm(len(self.x), generator=self.generator, device=self.place)
            total = 0.0
            for chosen in order.split(settings.batch_size):
                total += self._step(optimizer, self.x[chosen], self.y[chosen], epsilon)
                schedule.step()
            self._install()
            clean, robust = self._validate()
            yield TuningEpoch(epoch, settings.epochs, total / batches, clean, robust)

    def _step(
        self, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, epsilon: float
    ) -> float:
        self._install()
        adversarial = self._attack(x, y, epsilon, steps=self.settings.attack_steps)
        weight = self.settings.robust_weight
        for name, layer in self.module.layers.items():
            layer.relaxed = self.counts[name]
        try:
            logits = self.module(torch.cat([x, adversarial]))
            clean, robust = (
                functional.cross_entropy(part, y) for part in (logits[: len(x)], logits[len(x) :])
            )
            loss = (1 - weight) * clean + weight * robust
            optimizer.zero_grad()
            loss.backward()
        finally:
            for layer in self.module.layers.values():
                layer.relaxed = None
        limit = self.settings.max_pairs
        for name, counts in self.counts.items():
            assert counts.grad is not None
            counts.grad *= self.free[name]
        optimizer.step()
        with torch.no_grad():
            for counts in self.counts.values():
                counts.clamp_(-limit, limit)
        return float(loss.detach())

    def _attack(self, x: Tensor, y: Tensor, epsilon: float, *, steps: int) -> Tensor:
        """FGSM with a random start (one step of 1.25 ε) or PGD (steps of 2.5 ε / steps)."""
        low, high = self.settings.clip
        size = (1.25 if steps == 1 else 2.5 / steps) * epsilon
        start = torch.rand(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
        perturbed = (x + epsilon * (2 * start - 1)).clamp(low, high)
        for _ in range(steps):
            perturbed.requires_grad_()
            loss = functional.cross_entropy(self.module(perturbed), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, perturbed)
            with torch.no_grad():
                perturbed = perturbed + size * gradient.sign()
                perturbed = torch.max(torch.min(perturbed, x + epsilon), x - epsilon)
                perturbed = perturbed.clamp(low, high)
        return perturbed.detach()

    def _validate(self) -> tuple[float, float]:
        """Clean and PGD-10 accuracy on the validation split."""
        adversarial = self._attack(self.held_x, self.held_y, self.settings.epsilon, steps=10)
        with torch.no_grad():
            clean, robust = (
                float((self.module(inputs).argmax(1) == self.held_y).float().mean())
                for inputs in (self.held_x, adversarial)
            )
        return clean, robust

    def _install(self) -> None:
        rounded = self._rounded()
        for name, layer in self.module.layers.items():
            layer.assign(layer.site, rounded[name])

    def _rounded(self) -> dict[str, Tensor]:
        return {
            name: counts.detach().round().to(torch.int8) for name, counts in self.counts.items()
        }

    def _recorded(self) -> dict[str, Any]:
        settings = {k: v for k, v in asdict(self.settings).items() if k != "on_epoch"}
        return {**settings, "clip": list(self.settings.clip)}
