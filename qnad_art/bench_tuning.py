"""What a step of tuned crosstalk costs over a step of adversarial training of the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qnad_art.adversarial_loop import AdversarialLoop
from qnad_art.bench import VARIANTS, Timing, interleaved, plain_network, timings
from qnad_art.conversion import convert
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.device import DEFAULT_DEVICE
from qnad_art.finetune import finetuning_loop

TARGET = 1.5
"""A step of tuning should take at most so many times as long as one of adversarial training."""


def bench_tuning(
    model: str,
    *,
    batch_size: int = 128,
    attack_steps: int = 3,
    repeats: int = 10,
    device: str = DEFAULT_DEVICE,
) -> list[Timing]:
    """One optimisation step: weights of the plain network, then crosstalk with and without shots.

    Each step makes adversarial examples of ``batch_size`` images in ``attack_steps`` steps and
    takes one of Adam. The network is untrained, the images are random, and the labels are what it
    makes of them; the variants run in turn, ``repeats`` times after one warm-up, and ratios are
    taken within each round.
    """
    settings = Tuned(batch_size=batch_size, attack_steps=attack_steps)
    network, x = plain_network(model, 2 * batch_size)
    y = network(x).argmax(1)
    loops = {"weights": finetuning_loop(network, x, y, settings)}
    for name, shots in VARIANTS.items():
        module = convert(network, x, device=device, shots=shots, seed=0)
        loops[f"crosstalk, {name}"] = settings.loop(module, x, y)
    chosen = torch.arange(batch_size)

    def step(loop: AdversarialLoop) -> Callable[[], object]:
        return lambda: loop.step(chosen, 0.5)

    rounds = interleaved({name: step(loop) for name, loop in loops.items()}, repeats)
    return timings(model, rounds)
