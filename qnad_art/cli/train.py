"""``qnad train``: train a network and write its weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from qnad_art.cli import inputs
from qnad_art.cli.inputs import checkpointed, duration, given, load_split
from qnad_art.cli.screen import Console
from qnad_art.errors import DatasetError

if TYPE_CHECKING:
    from torch import nn

    from qnad_art.datasets.dataset import Dataset
    from qnad_art.training.standard import EpochResult, TrainResult, TrainSettings


def train(
    model: Annotated[
        str, Argument(help=f"Network: lenet5, alexnet, vgg16_bn or resnet18. {inputs.RUNS_CODE}")
    ],
    data: inputs.Data,
    data_dir: inputs.DataDir = None,
    download: Annotated[
        bool, Option("--download", help="Download the data set if it is missing.")
    ] = False,
    epochs: Annotated[
        int | None, Option(help="Number of epochs. The default depends on the network.")
    ] = None,
    batch_size: Annotated[int | None, Option(help="Number of images in a step.")] = None,
    learning_rate: Annotated[
        float | None, Option(help="Peak of the one-cycle learning rate.")
    ] = None,
    precision: inputs.Precision = None,
    device: Annotated[str, Option(help="Where to train: auto, cpu or cuda.")] = "auto",
    seed: Annotated[
        int, Option(help="Seed of the initial weights, the batches and the augmentation.")
    ] = 0,
    images: Annotated[
        int | None,
        Option("--images", "--limit", help="Number of training images (default: all of them)."),
    ] = None,
    without_test_of: inputs.WithoutTestOf = None,
    validation_fraction: Annotated[
        float, Option(help="Fraction of the training images to validate on; 0 for no validation.")
    ] = 0.1,
    output: Annotated[
        Path | None,
        Option(help="File to write. The default is ./MODEL-DATA.safetensors."),
    ] = None,
    resume: inputs.Resume = False,
) -> None:
    """Train a network, and write its weights and test accuracy to a safetensors file."""
    from qnad_art.models.architectures import build_model
    from qnad_art.models.weights import save_weights
    from qnad_art.training.standard import TrainSettings

    changes = given(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, precision=precision
    )
    network_of = inputs.find_network(model)
    settings = TrainSettings.for_model(network_of, device=device, seed=seed, **changes)

    console = Console(soft_wrap=True)
    if output is not None:
        inputs.check_file(output)
    training, test = _load(console, data, data_dir, download)
    label = Path(model).name.replace(".py:", "-").replace(":", "-")
    output = output or Path(f"{label}-{training.name}.safetensors")
    training = inputs.leave_out(console, training, without_test_of, data_dir)
    if images is not None:
        training = training.take(images, seed)
        console.print(f"Using {len(training):,} of them, drawn with seed {seed}.")
    validation = None
    if validation_fraction:
        validation, training = training.split(validation_fraction, seed)
        console.print(f"Holding out {len(validation):,} of them for validation.")
    network = build_model(
        network_of,
        num_classes=len(training.classes),
        in_channels=training.x.shape[1],
        image_size=training.x.shape[2],
        seed=seed,
    )
    checkpoint = output.with_suffix(".checkpoint.safetensors")
    result = _train(console, network, training, validation, settings, checkpoint, resume)
    card = _test(console, network, test) | _describe(training, settings, result)
    save_weights(network, output, card=card)
    checkpoint.unlink(missing_ok=True)
    console.print(f"Weights written to {output}")


def _load(
    console: Console, name: str, data_dir: Path | None, download: bool
) -> tuple[Dataset, Dataset]:
    training = load_split(console, name, "train", data_dir, download=download)
    test = load_split(console, name, "test", data_dir, download=download)
    if training.x.shape[1:] != test.x.shape[1:]:
        # Fails now rather than after hours of training.
        raise DatasetError(
            f"{name}: training images have shape {training.x.shape[1:]}, but test images "
            f"{test.x.shape[1:]}; give all images the same shape."
        )
    return training, test


def _train(
    console: Console,
    network: nn.Module,
    training: Dataset,
    validation: Dataset | None,
    settings: TrainSettings,
    checkpoint: Path,
    resume: bool,
) -> TrainResult:
    from qnad_art.training import standard as engine

    status = console.status(f"Epoch 1 of {settings.epochs}")
    with checkpointed(console, checkpoint, resume), status:

        def on_epoch(result: EpochResult) -> None:
            # A log file, which shows no status, gets a line per epoch.
            console.print(_epoch_line(result))
            status.update(f"Epoch {result.epoch + 1} of {result.epochs}")

        return engine.train(
            network,
            training,
            settings,
            validation=validation,
            checkpoint=checkpoint,
            resume=resume and checkpoint.exists(),
            on_epoch=on_epoch,
        )


def _epoch_line(result: EpochResult) -> str:
    left = duration((result.epochs - result.epoch) * result.seconds)
    accuracy = result.validation_accuracy
    validated = "" if accuracy is None else f"  validation accuracy {accuracy:.2%}"
    return (
        f"epoch {result.epoch:>{len(str(result.epochs))}}/{result.epochs}  "
        f"loss {result.loss:.4f}{validated}  "
        f"{result.seconds:.1f} s, about {left} left"
    )


def _test(console: Console, network: nn.Module, test: Dataset) -> dict[str, Any]:
    """Measure the test accuracy, print it, and return it for the card."""
    from qnad_art.accuracy import Proportion
    from qnad_art.training.standard import evaluate_accuracy

    with console.status("Testing"):
        accuracy = evaluate_accuracy(network, test)
    low, high = Proportion(round(accuracy * len(test)), len(test)).interval
    console.print(
        f"Test accuracy {accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, "
        f"{len(test):,} images)"
    )
    return {
        "test_accuracy": accuracy,
        "test_accuracy_wilson95": [low, high],
        "test_images": len(test),
        "test_provenance": test.provenance,
    }


def _describe(training: Dataset, settings: TrainSettings, result: TrainResult) -> dict[str, Any]:
    return {
        "data": training.name,
        "classes": list(training.classes),
        "training_images": len(training),
        "training_provenance": training.provenance,
        "settings": asdict(settings),
        "device": result.device,
        "seconds": sum(epoch.seconds for epoch in result.history),
    }
