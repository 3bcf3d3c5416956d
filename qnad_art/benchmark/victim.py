"""A defended classifier as attackers and scoring see it: its draws, its averages, its surrogate."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.module import AveragedDraws, QuantumExecutedModule
from qnad_art.sampling import NoiseSource


def noise_sources(classifier: PyTorchClassifier) -> list[NoiseSource]:
    """The sources of noise in a classifier's module, in a fixed order, each once."""
    sources = (getattr(module, "noise", None) for module in classifier.model.modules())
    return list({id(s): s for s in sources if isinstance(s, NoiseSource)}.values())


def reseed(classifier: PyTorchClassifier, seed: int) -> None:
    """Restart every source of noise in the module, each from a seed of its own."""
    sources = noise_sources(classifier)
    seeds = np.random.SeedSequence(seed).generate_state(len(sources), np.uint64)
    for source, own in zip(sources, seeds, strict=True):
        source.reseed(int(own >> np.uint64(1)))


@contextmanager
def frozen(classifier: PyTorchClassifier) -> Iterator[None]:
    """Context in which every pass sees the same draw."""
    with ExitStack() as stack:
        for source in noise_sources(classifier):
            stack.enter_context(source.frozen())
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which the global generators start from ``seed``; ART's attacks draw from them.

    Afterwards they go on where they were.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
