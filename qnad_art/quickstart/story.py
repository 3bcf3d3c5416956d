"""The quickstart: train, harden, attack and report on data that is always available."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qnad_art.accuracy import Images, Labels, Proportion, package_versions, pgd_examples
from qnad_art.device.catalogue import load_device
from qnad_art.files.atomic import write_bytes, write_json
from qnad_art.files.unfinished import Unfinished
from qnad_art.quickstart.results import (
    ATTACKS,
    NETWORKS,
    RUNGS,
    Accuracy,
    QuickstartResult,
    QuickstartSettings,
)

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.datasets.dataset import Dataset
    from qnad_art.training.adversarial import TuningEpoch
    from qnad_art.training.standard import EpochResult


def run_quickstart(
    settings: QuickstartSettings,
    *,
    folder: Path | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_tuning: Callable[[TuningEpoch], None] | None = None,
    on_cell: Callable[[Accuracy], None] | None = None,
) -> QuickstartResult:
    """Train LeNet-5 on mnist5k, run it as circuits without and with crosstalk, and attack each.

    ``on_epoch``, ``on_tuning`` and ``on_cell`` are called as results become available. A run that
    was stopped continues from the intermediate results in ``folder``.
    """
    from qnad_art.datasets.dataset import load_dataset
    from qnad_art.defence import CALIBRATION_IMAGES, QNAD
    from qnad_art.estimator import QuantumExecutedClassifier

    device = load_device(settings.device)  # first, so that a wrong name fails before training
    train_data, test_data = load_dataset("mnist5k", "train"), load_dataset("mnist5k", "test")
    test_data = test_data.take(settings.test_images, seed=settings.seed)
    unfinished = Unfinished(folder, asdict(settings))
    plain = _trained_classifier(train_data, settings, unfinished, on_epoch)
    execution = replace(settings.execution(), device=device)
    scales = train_data.x[:CALIBRATION_IMAGES]
    noisy = QuantumExecutedClassifier.from_art(plain, scales, settings=execution)
    uniform = QNAD(plain, settings=execution, strategy="uniform", fraction=settings.fraction)
    uniform.fit(train_data.x[:1000], train_data.y[:1000])
    tuned = QNAD(
        plain,
        settings=execution,
        strategy="tuned",
        fraction=settings.fraction,
        headroom=settings.headroom,
        epochs=settings.tuning_epochs,
        on_epoch=on_tuning,
        **unfinished.checkpoint("tuning"),
    )
    some = slice(0, settings.tuning_images)
    tuned.fit(train_data.x[some], train_data.y[some])
    hardened = [defence(train_data.x, plain) for defence in (uniform, tuned)]
    classifiers = dict(zip(NETWORKS, (plain, noisy, *hardened), strict=True))
    result = QuickstartResult(
        settings=settings,
        data=train_data.provenance,
        device_hash=device.hash,
        crosstalk_model=device.crosstalk_model,
        zz_source=device.zz_source,
        products_per_image=noisy.report().products,
        products_with_biases=hardened[-1].report().products,
        crosstalk_achieved={
            name: classifiers[name].plan.achieved for name in NETWORKS if "crosstalk" in name
        },
        versions=package_versions(),
    )
    there = [Accuracy(**cell) for cell in unfinished.figures()]

    def measure(network: str, sets: list[Images], attack: str, rung: str, epsilon: float) -> None:
        cell = _score(classifiers[network], sets, test_data.y, (network, attack, rung, epsilon))
        add(cell)
        unfinished.keep([asdict(cell) for cell in result.cells])

    def add(cell: Accuracy) -> None:
        result.cells.append(cell)
        if on_cell is not None:
            on_cell(cell)

    def known(count: int) -> bool:
        """Whether the next ``count`` cells were measured before; if so, they are reused."""
        position = len(result.cells)
        found = there[position : position + count]
        for cell in found if len(found) == count else ():
            add(cell)
        return len(found) == count

    for network in NETWORKS:
        if not known(1):
            measure(network, [test_data.x], "", "", 0)
    for attack in ATTACKS:
        for epsilon in settings.epsilons:

            def examples(
                victim: PyTorchClassifier, attack: str = attack, epsilon: float = epsilon
            ) -> Images:
                return _attack(victim, test_data, attack, epsilon, settings)

            if known(len(RUNGS) * len(NETWORKS)):
                continue
            transferred = [examples(plain)]
            for network in NETWORKS:
                own = transferred
                if network != "plain":
                    own = _both_gradients(classifiers[network], examples)
                measure(network, transferred, attack, "transfer", epsilon)
                measure(network, own, attack, "white-box", epsilon)
    unfinished.remove()
    return result


def cells_to_measure(settings: QuickstartSettings) -> int:
    """Number of cells that :func:`run_quickstart` will report."""
    attacked = len(ATTACKS) * len(RUNGS) * len(settings.epsilons)
    return len(NETWORKS) * (1 + attacked)


def save_quickstart(result: QuickstartResult, directory: Path) -> tuple[Path, Path]:
    """Write ``quickstart.json`` and ``quickstart.png``; return their paths."""
    from qnad_art.quickstart.figure import quickstart_figure

    json_path, png_path = directory / "quickstart.json", directory / "quickstart.png"
    write_json(json_path, asdict(result))
    write_bytes(png_path, quickstart_figure(result))
    return json_path, png_path


def _trained_classifier(
    data: Dataset,
    settings: QuickstartSettings,
    unfinished: Unfinished,
    on_epoch: Callable[[EpochResult], None] | None,
) -> PyTorchClassifier:
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    from qnad_art.models.architectures import build_model
    from qnad_art.training.standard import TrainSettings, train

    model = build_model("lenet5", seed=settings.seed)
    schedule = TrainSettings.for_model("lenet5", epochs=settings.epochs, seed=settings.seed)
    train(model, data, schedule, **unfinished.checkpoint("training"), on_epoch=on_epoch)
    return PyTorchClassifier(
        model.eval(),
        nn.CrossEntropyLoss(),
        data.x.shape[1:],
        len(data.classes),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _attack(
    classifier: PyTorchClassifier,
    data: Dataset,
    attack: str,
    epsilon: float,
    settings: QuickstartSettings,
) -> Images:
    """Adversarial examples of ART's FGSM or PGD (without random start) against ``classifier``."""
    from art.attacks.evasion import FastGradientMethod

    if attack == "FGSM":
        method = FastGradientMethod(classifier, eps=epsilon, batch_size=250)
        examples: Images = method.generate(data.x, data.y)
        return examples
    return pgd_examples(
        classifier,
        data.x,
        data.y,
        epsilon=epsilon,
        steps=settings.pgd_steps,
        step=epsilon / 4,
    )


def _both_gradients(
    classifier: PyTorchClassifier, attack: Callable[[PyTorchClassifier], Images]
) -> list[Images]:
    """Examples made with true gradients, and examples made through saturated activations."""
    with classifier.module.unsaturated_gradients():
        through = attack(classifier)
    return [attack(classifier), through]


def _score(
    classifier: PyTorchClassifier,
    sets: list[Images],
    y: Labels,
    where: tuple[str, str, str, float],
) -> Accuracy:
    """Fraction of images classified correctly in every set, under fresh noise draws."""
    right = [classifier.predict(x).argmax(1) == y for x in sets]
    found = Proportion(int(np.logical_and.reduce(right).sum()), len(y))
    low, high = found.interval
    return Accuracy(*where, accuracy=found.accuracy, low=low, high=high, images=found.images)
