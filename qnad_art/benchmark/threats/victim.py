"""A defended classifier as attackers and scoring see it: draws, averages and surrogate."""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.network.module import AveragedDraws, QuantumExecutedModule

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

TRIED = 32
"""Number of images on which a classifier is tested for noise."""
ROUNDING = 1e-5
"""Differences between logits up to this fraction of the largest logit count as rounding."""


def derived(seed: int, *labels: str | int) -> int:
    """Derive a separate seed from ``seed`` for the use that the labels name."""
    words = [label if isinstance(label, int) else zlib.crc32(label.encode()) for label in labels]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def noise_sources(classifier: PyTorchClassifier) -> list[NoiseSource]:
    """The sources of noise in a classifier's module, each once, in a fixed order."""
    sources = (getattr(module, "noise", None) for module in classifier.model.modules())
    return list({id(s): s for s in sources if isinstance(s, NoiseSource)}.values())


def reseed(classifier: PyTorchClassifier, seed: int) -> None:
    """Restart every source of noise in the module, each with its own seed."""
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
    """Context in which the global generators start from ``seed``, because ART's attacks use them.

    Afterwards the generators continue from their earlier state.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for GPUs, slowly
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def predictions(classifier: PyTorchClassifier, x: Images, *, seed: int, batch_size: int) -> Images:
    """Outputs (N, classes) for ``x`` (N, …) in the draw that belongs to ``seed``."""
    with seeded(seed), in_own_precision(classifier):
        reseed(classifier, seed)
        outputs: Images = classifier.predict(x, batch_size=batch_size)
    return outputs


def differ(a: Images, b: Images) -> bool:
    """Whether outputs differ by more than rounding."""
    scale = max(float(np.nanmax(np.abs(a), initial=0.0)), 1e-30)
    return not np.allclose(a, b, rtol=0, atol=ROUNDING * scale, equal_nan=True)


def is_stochastic(classifier: PyTorchClassifier, x: Images) -> bool:
    """Whether two predictions of ``x`` (N, …) differ, whatever the source of the noise."""
    few = x[:TRIED]
    first, second = (predictions(classifier, few, seed=s, batch_size=TRIED) for s in (0, 1))
    return differ(first, second)


def averaged(classifier: PyTorchClassifier, draws: int) -> PyTorchClassifier:
    """``classifier`` with every pass through its module averaged over ``draws``.

    It keeps class, preprocessing, clip values and loss, and shares the module. Attacks on it use
    expectation over transformation (Athalye et al. 2018) or averaged queries.
    """
    if draws == 1:
        return classifier
    return with_module(classifier, AveragedDraws(classifier.model, draws))


def surrogate(classifier: PyTorchClassifier) -> PyTorchClassifier:
    """A copy without noise: quantum layers return exact expectations, other sources are off."""
    module = copy.deepcopy(classifier.model)
    for part in module.modules():
        if isinstance(part, QuantumExecutedModule):
            part.shots = None
        elif isinstance(part, AveragedDraws):
            part.draws = 1
        elif isinstance(getattr(part, "noisy", None), bool):
            part.noisy = False
    return with_module(classifier, module)


@contextmanager
def unsaturated(classifier: PyTorchClassifier) -> Iterator[None]:
    """Context in which gradients pass saturated activations (BPDA); outputs do not change."""
    with ExitStack() as stack:
        for part in classifier.model.modules():
            if isinstance(part, QuantumExecutedModule):
                stack.enter_context(part.unsaturated_gradients())
        yield


def saturation(classifier: PyTorchClassifier, x: Images, *, batch_size: int = 250) -> float:
    """Largest share of a quantum layer's activations on ``x`` that exceed its scale, or 0."""
    shares: dict[QuantumLayer, list[float]] = {}

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, QuantumLayer)
        if layer.input_scale is not None:
            beyond = (inputs[0].detach().abs() > layer.input_scale).float().mean()
            shares.setdefault(layer, []).append(float(beyond))

    layers = [m for m in classifier.model.modules() if isinstance(m, QuantumLayer)]
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.register_forward_pre_hook(measure))
        if layers:
            predictions(classifier, x, seed=0, batch_size=batch_size)
    return max((float(np.mean(values)) for values in shares.values()), default=0.0)


@dataclass
class Passes:
    """Numbers of images passed through a module with and without gradients."""

    gradients: int = 0
    queries: int = 0


@contextmanager
def counted(classifier: PyTorchClassifier) -> Iterator[Passes]:
    """Context that counts passes through the classifier's module.

    Averages, and classifiers that attacks rebuild from ``model``, run the same module and are
    counted too.
    """
    passes = Passes()

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled() and inputs[0].requires_grad:
            passes.gradients += len(inputs[0])
        else:
            passes.queries += len(inputs[0])

    with entrance(classifier).register_forward_pre_hook(count):
        yield passes


@contextmanager
def in_own_precision(classifier: PyTorchClassifier) -> Iterator[None]:
    """Context in which the module gets its inputs in the type of its weights.

    Under NumPy 2, some of ART's attacks (HopSkipJump) and preprocessors pass float64.
    """
    own = next((p.dtype for p in classifier.model.parameters()), torch.float32)

    def cast(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].to(own), *inputs[1:])

    with entrance(classifier).register_forward_pre_hook(cast):
        yield


def entrance(classifier: PyTorchClassifier) -> nn.Module:
    """The module that every pass goes through; ART calls the children of a Sequential itself."""
    module: nn.Module = classifier.model
    return module[0] if isinstance(module, nn.Sequential) else module


def with_module(classifier: PyTorchClassifier, module: nn.Module) -> PyTorchClassifier:
    """A classifier with ``module`` that shares everything else with ``classifier``.

    It does not use ``copy``, because ART's classifier then writes files named by the clock.
    """
    other: Any = object.__new__(type(classifier))
    other.__dict__.update(classifier.__dict__)
    other._optimizer = None
    other._model = classifier._make_model_wrapper(module)
    return other
