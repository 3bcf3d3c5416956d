"""What a step of tuned crosstalk costs over a step of adversarial training of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from qnad_art.crosstalk.tuned import Tuned
from qnad_art.network.conversion import convert
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.finetune import finetuning_loop
from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import NETWORKS, VARIANTS, plain_network
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Case, Result, compared

TARGET = 1.5
ATTACK_STEPS = 3


def measure(settings: Settings) -> Iterator[Result]:
    """By network and batch; a step makes adversarial examples in three steps and takes one of Adam.

    The images are random, and the labels are what the untrained network makes of them.
    """
    for model in settings.networks(NETWORKS):
        for batch in settings.sizes((128,)):
            yield from _case(model, batch, settings)


def _case(model: str, batch: int, settings: Settings) -> list[Result]:
    chosen = Tuned(batch_size=batch, attack_steps=ATTACK_STEPS)
    network, x = plain_network(model, 2 * batch)
    with torch.no_grad():
        y = network(x).argmax(1)
    loops = {"weights": finetuning_loop(network, x, y, chosen)}
    for name, shots in VARIANTS.items():
        module = convert(network, x, device=settings.device, shots=shots, seed=0)
        loops[f"crosstalk, {name}"] = chosen.loop(module, x, y)
    images = torch.arange(batch)

    def step(loop: AdversarialLoop) -> Callable[[], object]:
        return lambda: loop.step(images, 0.5)

    runs = {name: step(loop) for name, loop in loops.items()}
    series = interleaved(runs, settings.rounds, budget=settings.budget)
    targets = {name: TARGET for name in runs if name != "weights"}
    case: Case = {"network": model, "batch": batch}
    return compared("tuning", case, series, targets=targets)
