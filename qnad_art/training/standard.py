"""Standard training, in which an interrupted run continues as if it had never stopped."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qnad_art.datasets.dataset import Dataset
from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError, differences
from qnad_art.files.artifacts import write_tensors
from qnad_art.models.architectures import Model, ModelEntry, architecture_of, model_entry
from qnad_art.models.weights import install_tensors, parse_object, read_tensors
from qnad_art.network.modes import evaluating
from qnad_art.plugins.discovery import call_plugin

PRECISIONS = ("float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")

_FORMAT = "checkpoint.1"
_CROP_PADDING = 4
_WARM_UP = 0.3


@dataclass(frozen=True)
class TrainSettings:
    """Settings of training by SGD with Nesterov momentum and a one-cycle learning rate.

    ``learning_rate`` is the peak, which is reached after 30 % of the steps. ``augment`` pads images
    by 4 pixels, crops them at random, and mirrors images of three channels at random.
    ``precision="bfloat16"`` trains under autocast; the weights stay float32. Raises
    :class:`~qnad_art.errors.InvalidInputError` if a value is out of range.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = False
    precision: str = "float32"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value < 2**63:
                raise InvalidInputError(f"{name} must be a whole number from {low}, not {value!r}.")
        for name, bound in (("learning_rate", 1e6), ("momentum", 1.0), ("weight_decay", 1e6)):
            value = getattr(self, name)
            if not 0 <= value < bound or (name == "learning_rate" and value == 0):
                raise InvalidInputError(f"{name} must lie in [0, {bound:g}), not {value}.")
        for name, valid in (("precision", PRECISIONS), ("device", DEVICES)):
            if getattr(self, name) not in valid:
                raise UnknownNameError(f"training {name}", getattr(self, name), valid)

    @classmethod
    def for_model(cls, name: Model, **changes: Any) -> TrainSettings:
        """Settings that suit a network of :func:`~qnad_art.models.build_model`, with changes."""

        def settings(entry: ModelEntry) -> TrainSettings:
            return cls(**{**entry.training, **changes})

        if isinstance(name, ModelEntry):
            try:
                return settings(name)
            except TypeError as error:
                raise InvalidInputError(f"{name.usual.name}, training: {error}.") from error
        model_entry(name)
        made: TrainSettings = call_plugin("model", name, settings)
        return made


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean training loss (nats), validation accuracy (0 to 1), wall-clock seconds."""

    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class TrainResult:
    """Record of a training run: its settings, its device and all epochs."""

    settings: TrainSettings
    device: str
    history: tuple[EpochResult, ...]


def train(
    model: nn.Module,
    data: Dataset,
    settings: TrainSettings,
    *,
    validation: Dataset | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> TrainResult:
    """Train a :func:`~qnad_art.models.build_model` network in place and leave it in eval mode.

    The model moves to the settings' device and stays there. After every epoch, ``checkpoint`` is
    replaced and then ``on_epoch`` is called. ``resume`` continues from that file. On a CPU with the
    same number of threads, the result then equals that of an uninterrupted run bit for bit. The
    seed determines everything random; the global random generators do not change. Raises
    ArtifactError if the checkpoint is missing, damaged or of another run, and InvalidInputError if
    the data do not fit the model or the loss is no longer finite.
    """
    _require_fit(model, data)
    if validation is not None:
        _require_fit(model, validation)
    if resume and not checkpoint:
        raise InvalidInputError("resume=True needs a checkpoint to continue from.")
    device = _resolve_device(settings.device)
    run = _Run(model.to(device), settings)
    identity = _identity(model, data, settings) if checkpoint else {}
    if checkpoint and resume:
        run.restore(checkpoint, identity)
    x, y = torch.from_numpy(data.x).to(device), torch.from_numpy(data.y).to(device)
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        start = time.perf_counter()
        loss = run.train_epoch(x, y, epoch)
        accuracy = evaluate_accuracy(model, validation) if validation is not None else None
        seconds = time.perf_counter() - start
        run.history.append(EpochResult(epoch, settings.epochs, loss, accuracy, seconds))
        if checkpoint:
            run.save(checkpoint, identity)
        if on_epoch:
            on_epoch(run.history[-1])
    model.eval()
    return TrainResult(settings, str(device), tuple(run.history))


def evaluate_accuracy(model: nn.Module, data: Dataset, *, batch_size: int = 256) -> float:
    """Return the accuracy (0 to 1) of a model in eval mode."""
    if not len(data) or batch_size < 1:
        raise InvalidInputError(
            f"Accuracy needs images and a batch size from 1, not {len(data)} and {batch_size}."
        )
    device = next(model.parameters()).device
    batches = (torch.from_numpy(values).split(batch_size) for values in (data.x, data.y))
    correct = 0
    with torch.no_grad(), evaluating(model):
        for x, y in zip(*batches, strict=True):
            correct += int((model(x.to(device)).argmax(1) == y.to(device)).sum())
    return correct / len(data)


def _require_fit(model: nn.Module, data: Dataset) -> None:
    architecture = architecture_of(model)
    size = architecture.image_size
    expected = (architecture.in_channels, size, size)
    if not len(data) or data.x.shape[1:] != expected or data.y.max() >= architecture.num_classes:
        raise InvalidInputError(
            f"{data.name}: {len(data)} images of shape {data.x.shape[1:]} in {len(data.classes)} "
            f"classes do not fit {architecture}; build a model for these data."
        )


def _resolve_device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InvalidInputError("device 'cuda' has no usable GPU here; use 'auto' or 'cpu'.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


class _Run:
    """The state of a training run, which can be saved and restored."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.history: list[EpochResult] = []

    def train_epoch(self, x: Tensor, y: Tensor, epoch: int) -> float:
        """Train one epoch, counted from 1, and return the mean loss."""
        order = torch.randperm(len(y), generator=self.generator).to(y.device)
        batches = torch.split(order, self.settings.batch_size)
        # A last batch of one image would break batch norm; another epoch uses that image.
        batches = batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches
        total = torch.zeros((), device=y.device)
        self.model.train()
        cuda = [torch.cuda.current_device()] if y.is_cuda else []
        with torch.random.fork_rng(devices=cuda):
            # Dropout draws from the global generators; seed them for this epoch from our generator.
            seed = int(torch.randint(2**62, (), generator=self.generator))
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed(seed)
            for index, batch in enumerate(batches):
                done = (epoch - 1 + index / len(batches)) / self.settings.epochs
                total += self._step(x[batch], y[batch], done) * len(batch)
        loss = float(total) / sum(len(batch) for batch in batches)
        if not math.isfinite(loss):
            peak = self.settings.learning_rate
            advice = f"lower the learning rate of {peak:g}, say to {peak / 10:g}"
            raise InvalidInputError(f"The loss became {loss} in epoch {epoch}; {advice}.")
        return loss

    def _step(self, x: Tensor, y: Tensor, done: float) -> Tensor:
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * _one_cycle(done)
        images = _augment(x, self.generator) if self.settings.augment else x
        low = self.settings.precision == "bfloat16"
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=low):
            loss = nn.functional.cross_entropy(self.model(images), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Replace ``path`` by the present state atomically."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors["generator"] = self.generator.get_state()
        history = [asdict(result) for result in self.history]
        metadata = {"qnad_art": _FORMAT, "run": json.dumps({"is": identity, "history": history})}
        write_tensors(path, tensors, metadata)

    def restore(self, path: Path, identity: dict[str, Any]) -> None:
        """Restore the state in ``path``, provided that it belongs to the same run."""
        tensors, metadata = read_tensors(path)
        if metadata.get("qnad_art") != _FORMAT:
            raise ArtifactError(f"{path} is not a training checkpoint ({_FORMAT}); do not resume.")
        run = parse_object(metadata.get("run", ""), path)
        try:
            self.history = [EpochResult(**result) for result in run["history"]]
            self.generator.set_state(tensors.pop("generator"))
            differing = differences(run["is"], identity)
        except (AttributeError, KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"{path} is an incomplete checkpoint ({error}).") from error
        if differing:
            raise ArtifactError(f"{path} is of another run: {differing}. Use its settings.")
        parts = {name.partition(".")[::2]: value for name, value in tensors.items()}
        weights = {name: value for (kind, name), value in parts.items() if kind == "weights"}
        install_tensors(self.model, weights, path)
        for name, parameter in self.model.named_parameters():
            if ("momentum", name) in parts:
                buffer = parts["momentum", name].to(parameter.device)
                if buffer.shape != parameter.shape:
                    raise ArtifactError(f"{path}: the momentum of {name} has another shape.")
                self.optimizer.state[parameter]["momentum_buffer"] = buffer


def _one_cycle(done: float) -> float:
    """Return the factor of the peak learning rate after a fraction ``done`` of all steps."""
    if done < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crop every image at random after zero padding; mirror half of the colour images."""
    n, channels, height, width = x.shape
    top, left = torch.randint(2 * _CROP_PADDING + 1, (2, n, 1, 1), generator=generator)
    rows = top + torch.arange(height).view(1, height, 1)
    columns = left + torch.arange(width).view(1, 1, width)
    if channels == 3:
        mirrored = torch.rand((n, 1, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(2), columns)
    padded = nn.functional.pad(x, (_CROP_PADDING,) * 4).permute(0, 2, 3, 1)
    index = [i.to(x.device) for i in (torch.arange(n).view(n, 1, 1), rows, columns)]
    return padded[tuple(index)].permute(0, 3, 1, 2).contiguous()


def _identity(model: nn.Module, data: Dataset, settings: TrainSettings) -> dict[str, Any]:
    """Describe a run by all that its result depends on; the device may change during the run."""
    run = {**asdict(architecture_of(model)), **asdict(settings), "images": len(data)}
    run["data checksum"] = zlib.crc32(data.y.tobytes(), zlib.crc32(data.x.tobytes()))
    del run["device"]
    return run
