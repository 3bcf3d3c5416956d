"""The control for noisy defences: Gaussian noise of the same variance, layer by layer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from art.estimators.classification import PyTorchClassifier
from pydantic import PlainSerializer, PlainValidator
from torch import Tensor, nn

from qnad_art.benchmark.defences import steps_content, steps_identity, steps_in
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.defences.common import WEIGHTED, Count, copy_of, shuffled, wrap_layers
from qnad_art.benchmark.defences.noise_modules import (
    NoisyNetwork,
    NoisyOutput,
    layers_with_weights,
)
from qnad_art.benchmark.threats.victim import reseed, with_module
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_art.files.atomic import read_json, write_json
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.network.modes import evaluating

_BATCH = 64
_NOISE = "noise.json"


class GaussianControl(Defence):
    """Gaussian noise on the output of every layer, of the same variance as a defence causes there.

    It answers whether quantum noise is better than matched classical noise. For every convolution
    and linear layer, the variance of the output's deviation from the network without the defence,
    over training images, is the same with this noise as with the defence. Deviations that the noise
    of earlier layers causes count: a layer gets only the variance that is still missing, and none
    if it already deviates more.

    Args:
        of: the defence, as a suite writes it; it is fitted here, with the same seed.
        images: number of training images on which the variances are measured.
    """

    name = "gaussian-control"
    noisy: ClassVar[bool] = True

    of: Annotated[tuple[Defence, ...], PlainValidator(steps_in), PlainSerializer(steps_content)]
    images: Count = 512

    @property
    def quantum(self) -> bool:  # type: ignore[override]
        """Whether the defence that it controls for uses a quantum device."""
        return any(step.quantum for step in self.of)

    def identity(self) -> dict[str, Any]:
        """The content, with files of the defence named by their content."""
        return {**super().identity(), "of": steps_identity(self.of)}

    def fit(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> None:
        """Measure the defence, and write the standard deviation of each layer's noise."""
        reference = copy_of(classifier)
        for number, step in enumerate(self.of):
            own = folder / f"of-{number}"
            own.mkdir()
            step.fit(reference, work, own)
            reference = step.apply(reference, work, own)
            shutil.rmtree(own)
        reseed(reference, work.seed)
        images, _ = classifier._apply_preprocessing(shuffled(work).x[: self.images], None, False)
        x = torch.as_tensor(images).to(classifier.device)
        plain = copy_of(classifier).model
        wanted = layer_variances(reference.model, plain, x)
        stds = matching_noise(plain, x, wanted, NoiseSource(work.seed))
        work.say(f"{self.name}: " + ", ".join(f"σ {std:.3g}" for std in stds))
        write_json(folder / _NOISE, {"variances": wanted, "std": stds})

    def apply(self, classifier: PyTorchClassifier, work: Work, folder: Path) -> PyTorchClassifier:
        """The classifier with the noise in its module."""
        path = folder / _NOISE
        content = read_json(path)
        stds = content.get("std") if isinstance(content, dict) else None
        if not isinstance(stds, list) or not all(isinstance(std, float) for std in stds):
            raise ArtifactError(f"{path} does not hold the standard deviation of every layer.")
        network, noise = copy_of(classifier).model, NoiseSource(work.seed)
        layers = len(layers_with_weights(network))
        if layers != len(stds):
            raise InvalidInputError(f"Noise for {len(stds)} layers; the network has {layers}.")
        wrap_layers(
            network, WEIGHTED, lambda layer, number: NoisyOutput(layer, stds[number], noise)
        )
        return with_module(classifier, NoisyNetwork(network, noise))


def layer_variances(network: nn.Module, plain: nn.Module, x: Tensor) -> list[float]:
    """Variance of each layer's output about that of ``plain``, over ``x`` (N, …) and units.

    Layers are the convolutions and linear layers, in the order of ``named_modules``. A network that
    runs them several times per pass (an ensemble) is compared run by run.

    Raises:
        InvalidInputError: the networks do not have the same number of layers.
    """
    counts = [len(layers_with_weights(part)) for part in (network, plain)]
    if counts[0] != counts[1]:
        raise InvalidInputError(
            f"The defence has {counts[0]} layers with weights, the network {counts[1]}: their "
            "deviations cannot be compared layer by layer."
        )
    sums = torch.zeros(counts[0], 3, dtype=torch.float64)
    with torch.no_grad(), evaluating(network), evaluating(plain):
        for batch in x.split(_BATCH):
            with _outputs(network) as found, _outputs(plain) as expected:
                network(batch)
                plain(batch)
            for row, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
                for run, output in enumerate(ours):
                    sums[row] += _moments(output - theirs[run % len(theirs)])
    count, total, squares = sums.unbind(1)
    mean = total / count.clamp_min(1)
    variances: list[float] = (squares / count.clamp_min(1) - mean**2).clamp_min(0).tolist()
    return variances


def matching_noise(
    plain: nn.Module, x: Tensor, wanted: list[float], noise: NoiseSource
) -> list[float]:
    """Standard deviation of the noise that gives each layer's output its ``wanted`` variance.

    One pass runs over ``x`` (N, …) with noise and without. When it reaches a layer, it shows how
    much the output already deviates because of the noise of earlier layers.
    """
    stds: dict[nn.Module, float] = {}
    variance = dict(zip(layers_with_weights(plain), wanted, strict=True))

    def add(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        noisy, exact = output.chunk(2)
        if layer not in stds:
            count, total, squares = _moments(noisy - exact).tolist()
            there = squares / count - (total / count) ** 2
            stds[layer] = max(variance[layer] - there, 0.0) ** 0.5
        return torch.cat([noisy + stds[layer] * noise.normal_like(noisy), exact])

    with ExitStack() as stack, torch.no_grad(), evaluating(plain):
        for layer in variance:
            stack.callback(layer.register_forward_hook(add).remove)
        plain(torch.cat([x, x]))
    return [stds.get(layer, 0.0) for layer in variance]


def _moments(values: Tensor) -> Tensor:
    """Count, sum and sum of squares."""
    wide = values.to(torch.float64)
    return torch.stack([torch.tensor(float(wide.numel())), wide.sum().cpu(), (wide**2).sum().cpu()])


@contextmanager
def _outputs(network: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Context that records, layer by layer, the outputs of each run."""
    layers = layers_with_weights(network)
    found: list[list[Tensor]] = [[] for _ in layers]
    with ExitStack() as stack:
        for layer, outputs in zip(layers, found, strict=True):
            hook = partial(_record, outputs)
            stack.callback(layer.register_forward_hook(hook).remove)
        yield found


def _record(outputs: list[Tensor], layer: nn.Module, inputs: Any, output: Tensor) -> None:
    outputs.append(output)
