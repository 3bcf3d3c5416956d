"""Adversarial optimisation: its settings, its attack, and the interface of its unknowns.

The loop itself is in :mod:`~.adversarial_loop`. It optimises crosstalk
(:mod:`qnad_art.crosstalk.tuned`) or weights (:mod:`qnad_art.training.finetune`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from qnad_art.errors import InvalidInputError
from qnad_art.training.budget import parse_budget
from qnad_art.training.execution import Plain

Units = float | Tensor
"""One number for the whole input, or a tensor that broadcasts over it."""

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")

Epsilon = Annotated[float, BeforeValidator(lambda value: parse_budget(str(value), "epsilon"))]
"""An L∞ budget; where pydantic reads it, ``"6/255"`` too."""

VALIDATION_IMAGES = 1000
"""Largest number of validation images."""


@dataclass(frozen=True)
class TuningEpoch:
    """Results of one epoch: the training loss, and validation accuracies in [0, 1]."""

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


LATER = {"later": True}
"""Metadata of a setting that came after results had been recorded."""


def untouched(field: Field[Any], value: Any) -> bool:
    """Whether a :data:`LATER` setting has its default, which names results as they were before."""
    return bool(field.metadata.get("later")) and value == field.default


@dataclass(frozen=True)
class AdversarialSettings:
    """Settings of an adversarial optimisation.

    Args:
        epsilon: L∞ budget of the training attack, in units of the images. It grows from 0 over the
            first third of the steps.
        attack_steps: 1 selects FGSM with a random start, more steps select PGD.
        robust_weight: weight of the adversarial loss in [0, 1]; the rest is that of the clean loss.
        epochs, batch_size, learning_rate: settings of Adam, which uses a cosine schedule.
        patience: stop after this number of epochs without improvement; ``None`` means never.
        clip: smallest and largest value of an image.
        mean, std: values per channel, or one for all channels, if the inputs are standardised
            images: (image - mean) / std. :class:`~qnad_art.QNAD` takes these and ``clip`` from its
            classifier.
        validation_fraction: fraction of the inputs held out for validation (at most 1,000 images).
            The result is the epoch with the best sum of clean and robust validation accuracy,
            weighted like the losses. Robust accuracy is measured by PGD of 10 steps, or of twice
            ``attack_steps``, with true gradients and with gradients through saturated activations.
        shot_noise: whether to optimise under the shots of the module. ``False`` uses the exact
            expectation, which is faster. Validation always uses the shots.
        precision: precision of the forward and backward passes; ``"bfloat16"`` uses autocast.
        seed: seed of the validation split, the batches and the random starts.
        on_epoch: called after every epoch (``print`` works).
        on_step: called after every step with the number of finished steps and of all steps.
        checkpoint: file that is written after every epoch, before ``on_epoch`` is called.
        resume: continue from the checkpoint if it exists.
    """

    epsilon: Epsilon = 0.3
    attack_steps: int = 3
    robust_weight: float = 0.7
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.02
    patience: int | None = None
    clip: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
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
            raise InvalidInputError(f"clip is {self.clip}; give (lowest, highest) image value.")
        if len(self.mean) != len(self.std) or not self.std or not min(self.std) > 0:
            raise InvalidInputError(
                f"mean is {self.mean} and std {self.std}; give as many of each, every std above 0."
            )
        if self.precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}."
            )
        if self.resume and self.checkpoint is None:
            raise InvalidInputError("resume=True needs a checkpoint to continue from.")

    def recorded(self) -> dict[str, Any]:
        """The settings on which the result depends, as plain JSON."""
        left_out = {"on_epoch", "on_step", "checkpoint", "resume"}
        left_out |= {f.name for f in fields(self) if untouched(f, getattr(self, f.name))}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {**values, **{name: list(values[name]) for name in ("clip", "mean", "std")}}

    def in_units_of(self, x: Tensor, epsilon: float) -> tuple[Units, tuple[Units, Units]]:
        """Convert a budget and :attr:`clip` from units of images to units of ``x`` (N, C, …)."""
        mean, std = (_by_channel(values, x) for values in (self.mean, self.std))
        low, high = ((value - mean) / std for value in self.clip)
        return epsilon / std, (low, high)


class Unknowns(Protocol):
    """The unknowns of the optimisation, and how they enter the network."""

    def state(self) -> Mapping[str, Tensor]:
        """All tensors that change during a run, for a checkpoint (not copied)."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The leaf tensors to optimise, by name."""

    @property
    def execution(self) -> Plain:
        """How the network is executed."""

    def optimising(self) -> AbstractContextManager[None]:
        """Context in which the network's output is differentiable in the parameters."""

    def project(self) -> None:
        """Project the parameters into their allowed range after each step, without gradients."""

    def install(self) -> None:
        """Install the present values in the network for validation."""

    def result(self) -> Mapping[str, Tensor]:
        """Copies of the present values."""


def perturb(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: Units,
    steps: int,
    clip: tuple[Units, Units],
    generator: torch.Generator,
) -> Tensor:
    """Make L∞ adversarial examples from a random start.

    One step is FGSM-RS with step size 1.25 ε (Wong, Rice, Kolter 2020); more steps are PGD with
    step size 2.5 ε / ``steps`` (Madry et al. 2018). ``epsilon`` and ``clip`` are in units of ``x``
    and are numbers or broadcast over it.
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
    """Divide images and labels at random, by the settings' seed, into (training, validation)."""
    if len(x) != len(y):
        raise InvalidInputError(f"{len(x)} inputs for {len(y)} labels; give one label per input.")
    _, (low, high) = settings.in_units_of(x, settings.epsilon)
    slack = 1e-3 * (high - low)
    if bool(((x < low - slack) | (x > high + slack)).any()):
        raise InvalidInputError(
            f"The inputs run from {float(x.min()):.3g} to {float(x.max()):.3g}, beyond clip "
            f"{settings.clip} (with mean {settings.mean} and std {settings.std}): give clip as the "
            "range of the images, and mean and std if they were standardised."
        )
    held = min(max(1, round(settings.validation_fraction * len(x))), VALIDATION_IMAGES)
    if len(x) <= held:
        raise InvalidInputError(f"{len(x)} inputs are too few for training and validation.")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed))
    return (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]])


def _by_channel(values: Sequence[float], x: Tensor) -> Units:
    if len(values) == 1:
        return values[0]
    if len(values) != x.shape[1]:
        raise InvalidInputError(
            f"mean and std have {len(values)} values, and the inputs {x.shape[1]} channels; give "
            "one value for all channels, or one for each."
        )
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, *(1,) * (x.dim() - 2))
