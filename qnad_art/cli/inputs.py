"""What commands share: options, reading weights and data, tuning with progress and checkpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from qnad_art.cli.screen import Console
from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.datasets.dataset import Dataset
    from qnad_art.defence import QNAD
    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.models.architectures import Model as Network
    from qnad_art.network.module import QuantumExecutedModule
    from qnad_art.network.settings import ExecutionSettings
    from qnad_art.training.adversarial import TuningEpoch

RUNS_CODE = (
    "Give a registered name such as lenet5, or your own code as FILE.py:NAME or "
    "package.module:NAME; the code is run."
)

Weights = Annotated[
    Path,
    typer.Argument(help="Weights file written by `qnad train`, or any other safetensors file."),
]
Data = Annotated[
    str,
    typer.Option(
        help="Data set: mnist5k, digits, mnist, cifar10, cifar100, or the path of an image folder "
        "or zip file."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the data sets. The default is QNAD_DATA_DIR."),
]
Gpu = Annotated[
    bool,
    typer.Option("--gpu", help="Let workers use a GPU. Results then depend on the kind of GPU."),
]
Model = Annotated[
    str | None,
    typer.Option(help=f"Network of the weights, if their file does not name it. {RUNS_CODE}"),
]
HardenedModel = Annotated[
    str | None,
    typer.Option(help=f"Network, if the weights file or the folder does not name it. {RUNS_CODE}"),
]
Device = Annotated[
    str | None,
    typer.Option(help="Name or JSON file of the quantum device. The default is ibm_nairobi."),
]
FractionOption = Annotated[
    float | None, typer.Option(help="Fraction of the weights to put under crosstalk, from 0 to 1.")
]
Epsilon = Annotated[
    str | None,
    typer.Option(
        help="L∞ budget of the attack used in tuning, for pixels in [0, 1], such as 0.1 or 6/255."
    ),
]
AttackSteps = Annotated[
    int | None, typer.Option(help="Number of steps of the attack used in tuning.")
]
RobustWeight = Annotated[
    float | None,
    typer.Option(
        help="Weight of the adversarial loss, from 0 (clean loss only) to 1 (adversarial loss "
        "only)."
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Number of tuning epochs.")]
BatchSize = Annotated[int | None, typer.Option(help="Number of images in a tuning step.")]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Learning rate of tuning, in units of the weight scale s_w."),
]
MaxPairs = Annotated[
    int | None, typer.Option(help="Largest number of gate pairs on a single weight.")
]
Headroom = Annotated[
    float | None,
    typer.Option(
        help="Weight scale divided by the largest absolute weight of an output; at least 1."
    ),
]
Bias = Annotated[
    str | None,
    typer.Option(
        help="How biases are computed: classical, or quantum to run them as products. The default "
        "is quantum for the tuned strategy and classical for the others."
    ),
]
Percentile = Annotated[
    float | None,
    typer.Option(
        help="Percentile of the activations that sets their scale. The default is 100, or 99.5 "
        "with shots."
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(help="Stop after this number of epochs without an improvement."),
]
Refresh = Annotated[
    int | None, typer.Option(help="Number of times to rank the weights again during tuning.")
]
Precision = Annotated[
    str | None, typer.Option(help="Floating-point precision: float32 or bfloat16.")
]
Shots = Annotated[
    int | None,
    typer.Option(help="Number of shots for each product. The default is the exact expectation."),
]
ImagesOption = Annotated[
    int | None,
    typer.Option("--images", help="Number of training images to use. The default is all of them."),
]
WithoutTestOf = Annotated[
    str | None,
    typer.Option(
        help="Exclude training images that are in the test split of this data set (mnist5k)."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random choices.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue from the checkpoint next to the output."),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; defaults stay where the settings are defined."""
    return {name: value for name, value in options.items() if value is not None}


def check_file(path: Path) -> None:
    """Raise :class:`InvalidInputError` where no file can be written, before hours of work."""
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; give the name of a file.")
    _check_parents(path)


def check_folder(path: Path) -> None:
    """As :func:`check_file`, for a folder to write files into."""
    if path.exists() and not path.is_dir():
        raise InvalidInputError(f"{path} is a file; give the name of a folder.")
    _check_parents(path / "file")


def _check_parents(path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InvalidInputError(f"{path} cannot be written: {nearest} is not a writable folder.")


def load_split(
    console: Console,
    name: str,
    split: Literal["train", "test"],
    data_dir: Path | None,
    *,
    download: bool = False,
) -> Dataset:
    """One split of a data set; prints its size and provenance."""
    from qnad_art.datasets.dataset import load_dataset

    shown = escape(name)
    with console.status(f"Loading {shown}") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"Decoding {shown}: {done:,} of {total:,} images")

        data = load_dataset(name, split, data_dir=data_dir, download=download, progress=progress)
    role = "Training" if split == "train" else "Test"
    console.print(f"{role}: {len(data):,} images. {data.provenance}")
    return data


def leave_out(console: Console, data: Dataset, other: str | None, data_dir: Path | None) -> Dataset:
    """``data`` without the test images of the data set ``other``."""
    from qnad_art.datasets.dataset import load_dataset

    if other is None:
        return data
    rest = data.without(load_dataset(other, "test", data_dir=data_dir))
    console.print(f"{len(rest):,} images remain without the test images of {other}.")
    return rest


def take_images(data: Dataset, count: int | None, seed: int) -> Dataset:
    """``count`` images (all for ``None``), shuffled: folders are sorted by class."""
    return data.take(len(data) if count is None else count, seed)


def find_network(text: str) -> Network:
    """The network that a user names; says on the screen that code is run before it is."""
    from qnad_art.models.architectures import is_code
    from qnad_art.models.code import find_model

    if is_code(text):
        tell_code(text)
    return find_model(text)


def tell_code(reference: str) -> None:
    """Say that code is run (on stderr, since stdout may be JSON)."""
    Console(stderr=True).print(f"Running code: {reference}", soft_wrap=True)


def load_hardened(folder: Path, model: str | None) -> QuantumExecutedClassifier:
    """The classifier of a folder, whose network is ``model`` unless the folder names it."""
    from qnad_art.estimator import QuantumExecutedClassifier
    from qnad_art.models.architectures import build_model
    from qnad_art.storage import read_saved

    if model is None:
        return QuantumExecutedClassifier.load(folder)
    saved = read_saved(folder)
    if len(saved.input_shape) != 3 or len(set(saved.input_shape[1:])) != 1:
        raise InvalidInputError(
            f"{folder} takes inputs of shape {saved.input_shape}, and --model is for square images "
            "only. In Python, use QuantumExecutedClassifier.load(folder, model=network)."
        )
    channels, size, _ = saved.input_shape
    sizes = {"num_classes": saved.nb_classes, "in_channels": channels, "image_size": size}
    network = build_model(find_network(model), **sizes)
    return QuantumExecutedClassifier.load(folder, model=network)


def load_classifier(weights: Path, model: str | None, data: Dataset) -> PyTorchClassifier:
    """ART classifier of a weights file, for images as those of ``data``; on a GPU if there is one.

    Raises:
        ArtifactError: a damaged file, or one that does not say its network where ``model`` does
            not either.
        InvalidInputError: the weights are for other images or classes than ``data``.
    """
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    from qnad_art.models.architectures import architecture_of
    from qnad_art.models.weights import load_model

    channels, height, width = data.x.shape[1:]
    sizes = {"num_classes": len(data.classes), "in_channels": channels, "image_size": height}
    named = None if model is None else find_network(model)
    network = load_model(weights, named, **sizes)
    made_for = architecture_of(network)
    wanted = {name: getattr(made_for, name) for name in sizes}
    if wanted != sizes or height != width:
        raise InvalidInputError(
            f"{weights} is for {wanted['num_classes']} classes of {wanted['in_channels']}×"
            f"{wanted['image_size']}×{wanted['image_size']} images, but {data.name} has "
            f"{len(data.classes)} classes of {channels}×{height}×{width}. Give the data that the "
            "network was trained on."
        )
    return PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        data.x.shape[1:],
        len(data.classes),
        clip_values=(0.0, 1.0),
        device_type="gpu",
    )


@dataclass(frozen=True)
class Source:
    """What a command works on, as its options say: a network's weights and training images.

    Args:
        weights, data, data_dir, model, images, without_test_of: as the options of these names.
        seed: of the choice of the images.
    """

    weights: Path
    data: str
    data_dir: Path | None
    model: str | None
    images: int | None
    seed: int
    without_test_of: str | None = None

    def load(self, console: Console) -> tuple[PyTorchClassifier, Dataset]:
        """The classifier and the training images, shuffled."""
        training = load_split(console, self.data, "train", self.data_dir)
        training = leave_out(console, training, self.without_test_of, self.data_dir)
        training = take_images(training, self.images, self.seed)
        if self.images is not None:
            console.print(f"Using {len(training):,} of them, drawn with seed {self.seed}.")
        return load_classifier(self.weights, self.model, training), training


@contextmanager
def checkpointed(console: Console, checkpoint: Path, resume: bool) -> Iterator[None]:
    """Context of a run with a checkpoint: Ctrl-C says how to resume and ends with status 130."""
    if checkpoint.exists() and not resume:
        console.print(
            f"Replacing {checkpoint} of an earlier run, which --resume would have continued."
        )
    if resume and not checkpoint.exists():
        console.print(f"There is no checkpoint {checkpoint}; starting from the beginning.")
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.exists():
            advice = (
                f"The last finished epoch is in {checkpoint}. To continue, repeat the command with "
                "--resume."
            )
        else:
            advice = "No epoch had finished, so nothing was kept."
        console.print(f"Stopped. {advice}")
        raise typer.Exit(130) from None


class CrosstalkFit:
    """A crosstalk strategy made from options, and its fit with progress and checkpoint.

    Args:
        strategy: its name.
        settings: those given; what the strategy does not have is an
            :class:`~qnad_art.errors.UnknownNameError`, at once.
        checkpoint: file for the strategies that write one.
        resume: go on from it.
        seed: of the strategy, if it takes one.
    """

    def __init__(
        self,
        console: Console,
        strategy: str,
        settings: Mapping[str, Any],
        *,
        checkpoint: Path,
        resume: bool,
        seed: int,
    ) -> None:
        from qnad_art.crosstalk import build_strategy, taken

        self.name = strategy
        self.most_pairs = max(abs(settings.get(name, 0)) for name in ("max_pairs", "pairs"))
        self.console, self.checkpoint, self.resume = console, checkpoint, resume
        self.status = console.status("Ranking the weights")
        self.first: tuple[int, float] | None = None
        own = {"seed": seed, "checkpoint": checkpoint}
        own |= {"on_epoch": self._report, "on_step": self._tell}
        asked = {**settings, **given(resume=resume or None)}
        self.strategy = build_strategy(strategy, **taken(strategy, **own), **asked)

    def run(
        self, classifier: PyTorchClassifier, data: Dataset, settings: ExecutionSettings
    ) -> QNAD:
        """The fitted defence; the settings have room for the pairs that were asked for."""
        from qnad_art.defence import QNAD
        from qnad_art.plugins.discovery import blamed_on, find_plugin

        most = max(settings.max_pairs, self.most_pairs)
        defence = QNAD(classifier, settings=settings, strategy=self.strategy, max_pairs=most)
        self.console.print(f"Execution: {defence.execution}")
        blame = blamed_on(find_plugin("strategy", self.name))
        with checkpointed(self.console, self.checkpoint, self.resume), self.status, blame:
            defence.fit(data.x, data.y)
        if not defence.plan.injected and defence.plan.requested:
            self.console.print(
                "No weight received crosstalk. With the tuned strategy, try more epochs, a smaller "
                "batch size or a higher learning rate; with any strategy, try a device with idle "
                "neighbours."
            )
        return defence

    def _report(self, epoch: TuningEpoch) -> None:
        # One line an epoch reads well in a log file too, where the status is not shown.
        self.console.print(str(epoch))

    def _tell(self, done: int, steps: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        before, since = self.first
        left = duration((now - since) / max(done - before, 1) * (steps - done))
        about = f", about {left} left" if done > before else ""
        self.status.update(f"Step {done:,} of {steps:,}{about}")


def duration(seconds: float) -> str:
    """As hours, minutes and seconds, ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))


def print_plan(console: Console, module: QuantumExecutedModule) -> None:
    """Describe the crosstalk plan in force, layer by layer."""
    from qnad_art.crosstalk.report import plan_report

    console.print(plan_report(module.plan, module.placement, module.device_profile))
