"""What commands share: options, loading of weights and data, and tuning with checkpoints."""

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
from typer import Argument, Option

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

RUNS_CODE = (
    "Give a registered name such as lenet5, or your own code as FILE.py:NAME or "
    "package.module:NAME; the code is run."
)

Weights = Annotated[
    Path, Argument(help="Weights file of `qnad train`, or any other safetensors file.")
]
Data = Annotated[
    str,
    Option(
        help="Data set: mnist5k, digits, mnist, cifar10, cifar100, or the path of an image folder "
        "or zip file."
    ),
]
DataDir = Annotated[
    Path | None, Option(help="Folder with the data sets. The default is QNAD_DATA_DIR.")
]
Gpu = Annotated[
    bool, Option("--gpu", help="Let workers use a GPU. Results then depend on the kind of GPU.")
]
Model = Annotated[
    str | None,
    Option(help=f"Network of the weights, if their file does not name it. {RUNS_CODE}"),
]
HardenedModel = Annotated[
    str | None,
    Option(help=f"Network, if the weights file or the folder does not name it. {RUNS_CODE}"),
]
Device = Annotated[
    str | None, Option(help="Name or JSON file of the quantum device (default: ibm_nairobi).")
]
FractionOption = Annotated[
    float | None, Option(help="Fraction of the weights to put under crosstalk, from 0 to 1.")
]
Epsilon = Annotated[
    str | None, Option(help="L∞ budget of the attack used in tuning, such as 0.1 or 6/255.")
]
AttackSteps = Annotated[int | None, Option(help="Number of steps of the attack used in tuning.")]
RobustWeight = Annotated[
    float | None, Option(help="Weight of the adversarial loss; the clean loss has the rest of 1.")
]
Epochs = Annotated[int | None, Option(help="Number of tuning epochs.")]
BatchSize = Annotated[int | None, Option(help="Number of images in a tuning step.")]
LearningRate = Annotated[
    float | None, Option(help="Learning rate of tuning, in units of the weight scale s_w.")
]
MaxPairs = Annotated[int | None, Option(help="Largest number of gate pairs on a single weight.")]
Headroom = Annotated[
    float | None,
    Option(help="Weight scale divided by the largest absolute weight of an output; at least 1."),
]
Bias = Annotated[
    str | None,
    Option(
        help="How biases are computed: classical, or quantum to run them as products. The default "
        "is quantum for the tuned strategy and classical for the others."
    ),
]
MappingName = Annotated[
    str | None,
    Option(
        help="Angle that stands for an activation: arcsine, linear, or the name of a plugin. The "
        "default is arcsine."
    ),
]
Echo = Annotated[
    bool,
    Option(
        "--echo", help="Give waits of a neighbour an echo, which cancels detuning and takes time."
    ),
]
Percentile = Annotated[
    float | None,
    Option(
        help="Percentile of the activations that sets their scale. The default is 100, or 99.5 "
        "with shots."
    ),
]
Patience = Annotated[
    int | None, Option(help="Stop after this number of epochs without an improvement.")
]
Refresh = Annotated[
    int | None, Option(help="Number of times to rank the weights again during tuning.")
]
Precision = Annotated[str | None, Option(help="Floating-point precision: float32 or bfloat16.")]
Shots = Annotated[
    int | None,
    Option(help="Number of shots for each product. The default is the exact expectation."),
]
ImagesOption = Annotated[
    int | None, Option("--images", help="Number of training images (default: all of them).")
]
WithoutTestOf = Annotated[
    str | None,
    Option(help="Exclude training images that are in the test split of this data set (mnist5k)."),
]
Seed = Annotated[int, Option(help="Seed of all random choices.")]
Resume = Annotated[
    bool, Option("--resume", help="Continue from the checkpoint next to the output.")
]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; settings define the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None}


def check_file(path: Path) -> None:
    """Raise InvalidInputError if no file can be written to ``path``, before hours of work."""
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; give the name of a file.")
    _check_parents(path)


def _check_parents(path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InvalidInputError(f"{path} cannot be written: {nearest} is not a writable folder.")


def check_folder(path: Path) -> None:
    """Raise InvalidInputError if no files can be written to the folder ``path``."""
    if path.exists() and not path.is_dir():
        raise InvalidInputError(f"{path} is a file; give the name of a folder.")
    _check_parents(path / "file")


def load_split(
    console: Console,
    name: str,
    split: Literal["train", "test"],
    data_dir: Path | None,
    *,
    download: bool = False,
) -> Dataset:
    """Load one split of a data set, and print its size and provenance."""
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
    """Return ``data`` without the test images of the data set ``other``."""
    from qnad_art.datasets.dataset import load_dataset

    if other is None:
        return data
    rest = data.without(load_dataset(other, "test", data_dir=data_dir))
    console.print(f"{len(rest):,} images remain without the test images of {other}.")
    return rest


def find_network(text: str) -> Network:
    """Find the network that a user names, and announce code before it runs."""
    from qnad_art.models.architectures import is_code
    from qnad_art.models.code import find_model

    if is_code(text):
        tell_code(text)
    return find_model(text)


def tell_code(reference: str) -> None:
    """Announce that code runs, on stderr because stdout may be JSON."""
    Console(stderr=True).print(f"Running code: {reference}", soft_wrap=True)


def load_hardened(folder: Path, model: str | None) -> QuantumExecutedClassifier:
    """Load the classifier of a folder; ``model`` is its network if the folder does not name it."""
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
    """Make the ART classifier of a weights file for images like ``data``, on a GPU if there is one.

    Raises ArtifactError for a damaged file or one whose network is unknown, and InvalidInputError
    if the weights are for other images or classes than ``data``.
    """
    from qnad_art.benchmark.suites.sources import classifier_of
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
    return classifier_of(network, data, gpu=True)


@dataclass(frozen=True)
class Source:
    """Options that determine a network's weights and its training images, drawn with ``seed``."""

    weights: Path
    data: str
    data_dir: Path | None
    model: str | None
    images: int | None
    seed: int
    without_test_of: str | None = None

    def load(self, console: Console) -> tuple[PyTorchClassifier, Dataset]:
        """Load the classifier and the shuffled training images."""
        training = load_split(console, self.data, "train", self.data_dir)
        training = leave_out(console, training, self.without_test_of, self.data_dir)
        # Images are shuffled even if all are used, because folders are sorted by class.
        training = training.take(len(training) if self.images is None else self.images, self.seed)
        if self.images is not None:
            console.print(f"Using {len(training):,} of them, drawn with seed {self.seed}.")
        return load_classifier(self.weights, self.model, training), training


@contextmanager
def checkpointed(console: Console, checkpoint: Path, resume: bool) -> Iterator[None]:
    """Context of a run with a checkpoint: after Ctrl-C it prints how to resume; status 130."""
    if checkpoint.exists() and not resume:
        console.print(
            f"Replacing {checkpoint} of an earlier run, which --resume would have continued."
        )
    if resume and not checkpoint.exists():
        console.print(f"There is no checkpoint {checkpoint}; starting from the beginning.")
    try:
        yield
    except KeyboardInterrupt:
        kept = f"The last finished epoch is in {checkpoint}. To continue, add --resume."
        lost = "No epoch had finished, so nothing was kept."
        console.print(f"Stopped. {kept if checkpoint.exists() else lost}")
        raise typer.Exit(130) from None


class CrosstalkFit:
    """A crosstalk strategy made from options, and its fit with progress and a checkpoint.

    Args:
        strategy: name of the strategy.
        settings: settings of the strategy; one that it does not have raises UnknownNameError.
        checkpoint: file for strategies that write one.
        resume: whether to continue from the checkpoint.
        seed: seed of the strategy, if it takes one.
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
        own = {"seed": seed, "checkpoint": checkpoint, "on_step": self._tell}
        # A log file, which shows no status, gets a line per epoch.
        own["on_epoch"] = lambda epoch: console.print(str(epoch))
        asked = {**settings, **given(resume=resume or None)}
        self.strategy = build_strategy(strategy, **taken(strategy, **own), **asked)

    def run(
        self,
        classifier: PyTorchClassifier,
        data: Dataset,
        settings: ExecutionSettings,
        start: QuantumExecutedClassifier | None = None,
    ) -> QNAD:
        """Fit the defence, from ``start`` on; its tables cover the pairs that were requested."""
        from qnad_art.defence import QNAD
        from qnad_art.device.catalogue import load_device
        from qnad_art.plugins.discovery import blamed_on, find_plugin

        most = max(settings.pairs_on(load_device(settings.device)), self.most_pairs)
        defence = QNAD(
            classifier, settings=settings, strategy=self.strategy, max_pairs=most, start=start
        )
        model = load_device(settings.device).crosstalk_model
        self.console.print(f"Execution: {defence.execution}; crosstalk model {model}")
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

    def _tell(self, done: int, steps: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        before, since = self.first
        left = duration((now - since) / max(done - before, 1) * (steps - done))
        about = f", about {left} left" if done > before else ""
        self.status.update(f"Step {done:,} of {steps:,}{about}")


def duration(seconds: float) -> str:
    """Format a duration as hours, minutes and seconds, ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))


def print_plan(console: Console, module: QuantumExecutedModule) -> None:
    """Print the crosstalk plan of a module, layer by layer."""
    from qnad_art.crosstalk.report import plan_report

    console.print(plan_report(module.plan, module.placement, module.device_profile))
