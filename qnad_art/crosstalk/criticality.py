"""Criticality: which weights the loss depends on most (Algorithm 1, line 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import with_bias
from qnad_art.network.modes import evaluating
from qnad_art.network.module import QuantumExecutedModule

Scope = Literal["global", "layer", "balanced"]
SCOPES: tuple[Scope, ...] = ("global", "layer", "balanced")
FRACTION = 0.3
"""Of the weights that get crosstalk, unless the user says otherwise."""


def weight_gradients(
    module: QuantumExecutedModule, x: Tensor, y: Tensor, *, batch_size: int = 128
) -> dict[str, Tensor]:
    """∂L/∂w of the weight of every product, through the noisy execution.

    Args:
        module: the network as it runs, noise and crosstalk included.
        x: inputs (N, …), clean or adversarial (the paper ranks after the attack).
        y: class indices (N,), int64.
        batch_size: images a backward pass; the gradients add up, so it does not change the result
            (but for shot noise).

    Returns:
        By layer name a tensor of :attr:`~.quantum_layer.QuantumLayer.product_shape` (a bias
        that is a product counts as the weight b / s_x of an input s_x). L is the mean cross-entropy
        over ``x``.
    """
    if len(x) != len(y) or len(x) == 0:
        raise InvalidInputError(f"{len(x)} inputs for {len(y)} labels; give as many, at least one.")
    layers = module.layers
    weights = [layer.weight for layer in layers.values()]
    weights += [layer.quantum_bias for layer in layers.values() if layer.quantum_bias is not None]
    required = [weight.requires_grad for weight in weights]
    totals = [torch.zeros_like(weight) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with evaluating(module):
            for inputs, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
                place = weights[0].device
                logits = module(inputs.to(place))
                loss = functional.cross_entropy(logits, labels.to(place), reduction="sum") / len(x)
                # A layer that the forward pass leaves out (an auxiliary head) has gradient zero.
                gradients = torch.autograd.grad(
                    loss, weights, allow_unused=True, materialize_grads=True
                )
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient
    finally:
        for weight, was in zip(weights, required, strict=True):
            weight.requires_grad_(was)
    found = iter(totals[len(layers) :])
    return {
        name: total
        if layer.quantum_bias is None
        else with_bias(total, next(found), 1 / layer.bias_unit)
        for (name, layer), total in zip(layers.items(), totals, strict=False)
    }


def select_critical(
    scores: Mapping[str, Tensor], fraction: float, *, scope: Scope = "global"
) -> dict[str, Tensor]:
    """The top ``fraction`` of the weights by |score|, as bool tensors by layer.

    Args:
        scores: the larger their absolute value, the more critical.
        fraction: in [0, 1].
        scope: ``"global"`` ranks all weights together (the paper), ``"layer"`` takes the fraction
            of each layer, ``"balanced"`` from each layer a number that goes with the square root of
            its size, so that small layers, which are used most, are chosen from most.
    """
    if not 0 <= fraction <= 1:
        raise InvalidInputError(f"fraction is {fraction}; it must be in [0, 1].")
    if not scores:
        raise InvalidInputError("There are no weights to choose from.")
    if scope not in SCOPES:
        raise InvalidInputError(f"scope {scope!r} is not one of {', '.join(SCOPES)}.")
    if scope == "layer":
        counts = {name: round(fraction * score.numel()) for name, score in scores.items()}
    elif scope == "balanced":
        counts = _balanced({name: score.numel() for name, score in scores.items()}, fraction)
    else:
        return _top(scores, round(fraction * sum(score.numel() for score in scores.values())))
    return {name: _top({name: score}, counts[name])[name] for name, score in scores.items()}


def _balanced(sizes: Mapping[str, int], fraction: float) -> dict[str, int]:
    """Counts that go with the root of the sizes, none above its size; what is left goes on."""
    left, roots = round(fraction * sum(sizes.values())), sum(n**0.5 for n in sizes.values())
    counts = {}
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        counts[name] = min(size, round(left * size**0.5 / roots))
        left, roots = left - counts[name], roots - size**0.5
    return counts


def _top(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = torch.zeros(flat.shape, dtype=torch.bool, device=flat.device)
    chosen[torch.topk(flat.abs(), count, sorted=False).indices] = True
    parts = chosen.split([score.numel() for score in scores.values()])
    return {
        name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)
    }
