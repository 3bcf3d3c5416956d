"""Attacks that know the noise draw: made in a frozen draw, and judged in the same draw.

A frozen draw gives every pass the same noise, by position in the batch. An attack that leaves
images out of its batches (AutoPGD drops those that it has broken) would meet the noise of other
images. Such an attack gets the images one at a time, so that there is only one position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from qnad_art.benchmark.threats.victim import (
    Images,
    Labels,
    entrance,
    frozen,
    in_own_precision,
    reseed,
    seeded,
)

AT_ONCE = 128
"""Most images per batch: the number in which ART's attacks ask for predictions."""

Attack = Callable[[Images, Labels, int], Images]
"""Makes adversarial examples from images, labels and a batch size."""


class _BatchSplit(Exception):
    """An attack has passed a batch other than the one that it was given."""


def known_draw_examples(
    victim: PyTorchClassifier, attack: Attack, x: Images, y: Labels, *, seed: int, batch_size: int
) -> tuple[Images, Images]:
    """Adversarial examples (N, …) for the draw that belongs to ``seed``, and their logits in it.

    Args:
        victim: the classifier that is attacked.
        attack: attack on this classifier, called for batches of ``x``.
        x, y: images (N, …) and class indices (N,).
        seed: seed of the draw and of the attack.
        batch_size: most images per pass.
    """
    examples, outputs = np.empty_like(x), []
    size = min(batch_size, AT_ONCE)
    with seeded(seed), in_own_precision(victim):
        reseed(victim, seed)
        with frozen(victim):
            for start in range(0, len(x), size):
                part = slice(start, min(start + size, len(x)))
                for piece in _attack(victim, attack, x, y, part, examples):
                    outputs.append(victim.predict(examples[piece], batch_size=size))
    return examples, np.concatenate(outputs)


def _attack(
    victim: PyTorchClassifier, attack: Attack, x: Images, y: Labels, part: slice, into: Images
) -> list[slice]:
    """Attack a batch at once if the attack keeps it whole; returns the pieces attacked."""
    count = part.stop - part.start
    try:
        with _whole_batches(victim, count):
            into[part] = attack(x[part], y[part], count)
        return [part]
    except _BatchSplit:
        pieces = [slice(i, i + 1) for i in range(part.start, part.stop)]
        for piece in pieces:
            into[piece] = attack(x[piece], y[piece], 1)
        return pieces


@contextmanager
def _whole_batches(victim: PyTorchClassifier, count: int) -> Iterator[None]:
    """Context in which a pass of any number of images but ``count`` raises, if that is above 1."""

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) != count > 1:
            raise _BatchSplit

    with entrance(victim).register_forward_pre_hook(check):
        yield
