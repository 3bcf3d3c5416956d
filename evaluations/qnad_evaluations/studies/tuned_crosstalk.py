"""Tuned crosstalk against white-box attacks, beside its controls, on full test data.

    python -m qnad_evaluations.studies.tuned_crosstalk lenet5.safetensors \
        --data mnist --data-dir DATA --hardened runs/lenet5 \
        --output evaluations/results/lenet5-mnist.json

``--hardened`` is a folder written by ``qnad harden``; its settings give the budget of the controls:
adversarial fine-tuning of the weights (same loop, images, attacks, epochs), uniform and random
crosstalk on the same fraction. Exact expectation, so the defence is deterministic and restarts may
skip images that are broken already. Every figure is written as soon as it is known, and a second
run goes on where the first one stopped.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn

from qnad_art.accuracy import Images, Labels
from qnad_art.datasets.dataset import Dataset, load_dataset
from qnad_evaluations.studies.book import Book, Correct

PGD_STEPS, RESTARTS = {"mnist": 40, "cifar10": 20}, {"mnist": 5, "cifar10": 1}
BUDGETS = {"mnist": (0.1, 0.2, 0.3), "cifar10": (2 / 255, 4 / 255, 6 / 255)}


def main(
    weights: Annotated[Path, typer.Argument(help="Weights of the plain network.")],
    hardened: Annotated[Path, typer.Option(help="Folder written by `qnad harden`.")],
    output: Annotated[Path, typer.Option(help="JSON with all figures.")],
    data: Annotated[str, typer.Option(help="mnist or cifar10.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Else QNAD_DATA_DIR.")] = None,
    model: Annotated[str | None, typer.Option(help="Architecture of a raw state dict.")] = None,
    images: Annotated[int, typer.Option(help="Test images.")] = 10_000,
    control_images: Annotated[int, typer.Option(help="Test images for the controls.")] = 2000,
    strong_images: Annotated[int, typer.Option(help="Test images for AutoPGD and Square.")] = 1000,
    finetune: Annotated[bool, typer.Option(help="Also train the fine-tuning control.")] = True,
) -> None:
    """Attack the hardened network and its controls."""
    from qnad_art import QuantumExecutedClassifier
    from qnad_art.models.weights import load_model

    console = Console(soft_wrap=True)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  ART's attacks draw from the global generator
    test = load_dataset(data, "test", data_dir=data_dir)
    test = test if images >= len(test.y) else test.take(images, seed=0)
    plain = _classifier(load_model(weights, model), test)
    victim = QuantumExecutedClassifier.load(hardened)
    book = Book(output, {"data": test.provenance, "plan": dict(victim.plan.settings)}, console)
    inherent = QuantumExecutedClassifier.load(hardened)
    inherent.module.remove_crosstalk()
    _attack_all(book, "plain", plain, plain, test, data, control_images)
    _attack_all(book, "tuned", victim, plain, test, data, images)
    _attack_strongly(book, "tuned", victim, test, data, strong_images)
    _attack_all(book, "inherent noise", inherent, plain, test, data, control_images)
    training = load_dataset(data, "train", data_dir=data_dir)
    for name in ("uniform", "random"):
        control = _with_strategy(name, victim, hardened, training)
        _attack_all(book, name, control, plain, test, data, control_images)
    if finetune:
        path = output.with_suffix(".finetuned.safetensors")
        tuned_weights = _finetuned(path, load_model(weights, model), training, victim, console)
        control = _classifier(tuned_weights, test)
        _attack_all(book, "fine-tuned weights", control, plain, test, data, control_images)
    book.print()


def _attack_all(
    book: Book, name: str, victim: Any, plain: Any, test: Dataset, data: str, images: int
) -> None:
    """Clean, transfer FGSM and PGD at the largest budget, white-box PGD at every budget."""
    from art.attacks.evasion import FastGradientMethod

    part = test if images >= len(test.y) else test.take(images, seed=0)
    largest = BUDGETS[data][-1]
    steps, restarts = PGD_STEPS[data], RESTARTS[data]

    def right(x: Images) -> Correct:
        return _right(victim, x, part.y)

    def fgsm(source: Any) -> Images:
        attack = FastGradientMethod(source, eps=largest, batch_size=500)
        examples: Images = attack.generate(part.x, part.y)
        return examples

    book.measure(f"{name} | clean", lambda: right(part.x))
    if victim is not plain:
        book.measure(f"{name} | transfer FGSM {largest:.4g}", lambda: right(fgsm(plain)))
        book.measure(
            f"{name} | transfer PGD-{steps} {largest:.4g}",
            lambda: right(_pgd(plain, part.x, part.y, largest, steps)),
        )
    book.measure(f"{name} | white-box FGSM {largest:.4g}", lambda: right(fgsm(victim)))
    for budget in BUDGETS[data]:
        book.measure(
            f"{name} | white-box PGD-{steps}x{restarts} {budget:.4g}",
            partial(_survives, victim, part, budget, steps, restarts),
        )


def _attack_strongly(
    book: Book, name: str, victim: Any, test: Dataset, data: str, images: int
) -> None:
    """AutoPGD on cross-entropy and the black-box Square attack."""
    from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack

    part = test.take(images, seed=1)

    def withstood(attack: Any) -> Correct:
        x = attack.generate(part.x, np.eye(len(part.classes), dtype=np.float32)[part.y])
        return _right(victim, x, part.y)

    for budget in BUDGETS[data]:
        book.measure(
            f"{name} | white-box AutoPGD-CE {budget:.4g}",
            partial(
                withstood,
                AutoProjectedGradientDescent(
                    victim,
                    eps=budget,
                    eps_step=2 * budget,
                    max_iter=100,
                    nb_random_init=1,
                    batch_size=250,
                    loss_type="cross_entropy",
                    verbose=False,
                ),
            ),
        )
        book.measure(
            f"{name} | black-box Square {budget:.4g}",
            partial(
                withstood,
                SquareAttack(victim, eps=budget, max_iter=1000, batch_size=500, verbose=False),
            ),
        )


def _right(victim: Any, x: Images, y: Labels) -> Correct:
    right: Correct = victim.predict(x, batch_size=500).argmax(1) == y
    return right


def _pgd(victim: Any, x: Images, y: Labels, budget: float, steps: int) -> Images:
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        victim,
        eps=budget,
        eps_step=max(2.5 * budget / steps, budget / 10),
        max_iter=steps,
        num_random_init=1,
        batch_size=500,
        verbose=False,
    )
    examples: Images = attack.generate(x, y)
    return examples


def _survives(victim: Any, test: Dataset, budget: float, steps: int, restarts: int) -> Correct:
    """Which images no restart of PGD breaks; broken ones are not attacked again.

    One more restart takes gradients through saturated activations (BPDA), which would hide some.
    """
    alive = _right(victim, test.x, test.y)
    through = [True] if hasattr(victim, "module") else []
    for bpda in (*through, *[False] * restarts):
        if not alive.any():
            break
        with victim.module.unsaturated_gradients() if bpda else nullcontext():
            x = _pgd(victim, test.x[alive], test.y[alive], budget, steps)
        alive[alive] = _right(victim, x, test.y[alive])
    return alive


def _with_strategy(name: str, victim: Any, hardened: Path, training: Dataset) -> Any:
    """A control strategy on the fraction that the tuned plan achieved."""
    from qnad_art import QuantumExecutedClassifier
    from qnad_art.crosstalk import build_strategy

    control = QuantumExecutedClassifier.load(hardened)
    control.module.remove_crosstalk()
    some = training.take(2000, seed=0)
    control.plan = build_strategy(name, fraction=victim.plan.achieved).plan(
        control.module, torch.tensor(some.x), torch.tensor(some.y)
    )
    return control


def _finetuned(
    path: Path, network: nn.Module, training: Dataset, victim: Any, console: Console
) -> nn.Module:
    """The weights after the same loop with the same settings, kept in a file."""
    from qnad_art.models.weights import load_model, save_weights
    from qnad_art.training.adversarial import AdversarialSettings
    from qnad_art.training.finetune import adversarial_finetune

    if not path.exists():
        known = {field.name for field in fields(AdversarialSettings)}
        given = {k: v for k, v in victim.plan.settings.items() if k in known}
        # Weights are not in units of s_w: a tenth of the rate for crosstalk trains them well.
        rate = given["learning_rate"] / 10
        given |= {"learning_rate": rate, "clip": tuple(given["clip"]), "on_epoch": console.print}
        images = victim.plan.settings.get("images", len(training.y))
        some = training if images >= len(training.y) else training.take(images, seed=0)
        result = adversarial_finetune(
            network, torch.tensor(some.x), torch.tensor(some.y), AdversarialSettings(**given)
        )
        save_weights(result, path, card={"control of": "tuned crosstalk", "rate": rate})
    return load_model(path)


def _classifier(network: nn.Module, data: Dataset) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        network.eval(),
        nn.CrossEntropyLoss(),
        data.x.shape[1:],
        len(data.classes),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


if __name__ == "__main__":
    typer.run(main)
