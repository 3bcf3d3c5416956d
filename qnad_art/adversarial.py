"""Adversarial optimisation: its settings, its attack, and what it asks of whatever is optimised.

The loop itself is in :mod:`qnad_art.adversarial_loop`; crosstalk (:mod:`qnad_art.crosstalk.tuned`)
and weights (:mod:`qnad_art.finetune`) are what it optimises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import InvalidInputError

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

VALIDATION_IMAGES = 1000
"""At most so many images are validated on."""


@dataclass(frozen=True)
class TuningEpoch:
    """One epoch: accuracies in [0, 1] on the validation split (``loss`` on training)."""

    epoch: int
    epochs: int
    loss: float
    clean: float
    robust: float
    seconds: float = field(compare=False)

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:>{len(str(self.epochs))}}/{self.epochs}  loss {self.loss:.4f}  "
            f"validation: clean {self.clean:.1%}, robust {self.robust:.1%}  ({self.seconds:.1f} s)"
        )


@dataclass(frozen=True)
class AdversarialSettings:
    """How to optimise against attacks.

    Args:
        epsilon: L∞ budget of the attack in training, in units of the network's input; it grows
            from 0 over the first third of the steps.
        attack_steps: 1 is FGSM with a random start, more is PGD.
        robust_weight: in [0, 1], of the adversarial loss against the clean one.
        epochs, batch_size, learning_rate: of Adam, with a cosine schedule.
        patience: stop after so many epochs without a better one; ``None`` for never.
        clip: smallest and largest input value.
        validation_fraction: of the inputs, kept apart (at most 1,000 images); the epoch with the
            best sum of clean and robust validation accuracy (PGD of 10 steps, or of twice
            ``attack_steps``, with true gradients and with gradients through saturated activations),
            weighted as the losses, is the result.
        shot_noise: optimise under the shots of the module; ``False`` on the exact expectation,
            which is faster. Validation always has them.
        precision: of the passes through the network, ``"bfloat16"`` under autocast.
        seed: of the validation split, batches and random starts.
        on_epoch: called after every epoch (``print`` will do).
        on_step: called after every step, with the number of steps done and of all.
        checkpoint: file that is written after every epoch, before ``on_epoch`` is called.
        resume: go on from the checkpoint if it is there.
    """

    epsilon: float = 0.3
    attack_steps: int = 3
    robust_weight: float = 0.7
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.02
    patience: int | None = None
    clip: tuple[float, float] = (0.0, 1.0)
    validation_fraction: float = 0.1
    shot_noise: bool = True
    precision: Precision = "float32"
    seed: int = 0
    on_epoch: Callable[[TuningEpoch], object] | None = None
    on_step: Callable[[int, int], object] | None = None
    checkpoint: str | Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        for setting in ("attack_steps", "epochs", "batch_size", "patience"):
            value = getattr(self, setting)
            if setting == "patience" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise InvalidInputError(
                    f"{setting} is {value!r}; it must be a whole number from 1."
                )
        if not self.epsilon > 0 or not self.learning_rate > 0:
            raise InvalidInputError(
                f"epsilon is {self.epsilon} and learning_rate {self.learning_rate}; both must be "
                "above 0."
            )
        if not 0 <= self.robust_weight <= 1:
            raise InvalidInputError(f"robust_weight is {self.robust_weight}; valid: 0 to 1.")
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(
                f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1."
            )
        if len(self.clip) != 2 or not self.clip[0] < self.clip[1]:
            raise InvalidInputError(f"clip is {self.clip}; give (lowest, highest) input value.")
        if self.precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}."
            )
        if self.resume and self.checkpoint is None:
            raise InvalidInputError("resume=True needs a checkpoint to go on from.")

    def recorded(self) -> dict[str, Any]:
        """The settings that the result depends on, as plain JSON."""
        left_out = {"on_epoch", "on_step", "checkpoint", "resume"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {**values, "clip": list(self.clip)}


def validation_steps(settings: AdversarialSettings) -> int:
    """Of the attack that judges: more than those of the attack that was trained against."""
    return max(10, 2 * settings.attack_steps)


class Unknowns(Protocol):
    """What is optimised, and how the network comes to have it."""

    def state(self) -> dict[str, Tensor]:
        """All that changes during a run, for a checkpoint (the tensors themselves)."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Leaf tensors by name."""

    def optimising(self) -> AbstractContextManager[None]:
        """Context in which the network's output is differentiable in the parameters."""

    def project(self) -> None:
        """Called after each step, without gradients: back into the allowed range."""

    def install(self) -> None:
        """Give the network the present values, for validation."""

    def result(self) -> Mapping[str, Tensor]:
        """The present values, as tensors of their own."""


def perturb(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    steps: int,
    clip: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """L∞ adversarial examples from a random start.

    One step is FGSM-RS with a step of 1.25 ε (Wong, Rice, Kolter 2020), more are PGD with steps of
    2.5 ε / ``steps`` (Madry et al. 2018).
    """
    size = (1.25 if steps == 1 else 2.5 / steps) * epsilon
    start = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    low, high = (x - epsilon).clamp_min_(clip[0]), (x + epsilon).clamp_max_(clip[1])
    perturbed = torch.clamp(x + epsilon * (2 * start - 1), low, high)
    for _ in range(steps):
        perturbed.requires_grad_()
        loss = functional.cross_entropy(network(perturbed).float(), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, perturbed)
        with torch.no_grad():
            perturbed = torch.clamp(perturbed + size * gradient.sign(), low, high)
    return perturbed.detach()


def split_validation(
    x: Tensor, y: Tensor, settings: AdversarialSettings
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(training, validation) images and labels, divided at random by the settings' seed."""
    if len(x) != len(y):
        raise InvalidInputError(f"{len(x)} inputs for {len(y)} labels; give as many of each.")
    held = min(max(1, round(settings.validation_fraction * len(x))), VALIDATION_IMAGES)
    if len(x) <= held:
        raise InvalidInputError(f"{len(x)} inputs are too few to tune and to validate on.")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed))
    return (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]])
