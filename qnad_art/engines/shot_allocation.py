"""Shots where they matter: more for the outputs whose noise reaches the decision, same total.

A layer's output o with S shots a product has the noise variance v_o / S, and moves the margin
between the two most probable classes by its gradient. To first order the margin's variance is
Σ_o V_o / S_o with V_o = E Σ_positions v_o (∂margin/∂y_o)²; under a fixed number of shots an image,
Σ_o n_o S_o for n_o products, it is least for S_o ∝ sqrt(V_o / n_o) (Neyman allocation).

The gradient is taken under the noise itself, and no output gets less than a quarter of the average:
an output before a ReLU that is always off moves nothing, until too few shots switch it on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qnad_art.engines import run_on
from qnad_art.errors import CalibrationError, InvalidInputError
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.quantum_layer import QuantumLayer
from qnad_art.network.modes import evaluating, setting
from qnad_art.network.module import QuantumExecutedModule

LEAST = 0.25
"""No output gets less than this fraction of the average shots (before all are scaled back)."""


def allocate_shots(module: QuantumExecutedModule, x: Tensor, *, batch_size: int = 64) -> None:
    """Divide the module's shots among the outputs of its layers, by their effect on the margin.

    The number of shots an image stays what it was with ``module.shots`` for every product, but for
    rounding (no product has less than one). The shares (``layer.shot_share``, 1 on average over
    products) stay when ``shots`` changes.

    Args:
        module: calibrated, with ``shots`` set.
        x: some hundred training images (N, …).
        batch_size: images a pass.

    Raises:
        CalibrationError: the module has no shots to divide.
    """
    if module.shots is None:
        raise CalibrationError("There are no shots to divide: set shots (say 1024) first.")
    if len(x) == 0:
        raise InvalidInputError("There are no images to divide the shots by: give at least one.")
    noise = NoiseSource(0)
    effects: dict[str, Tensor] = {}
    products: dict[str, float] = {}
    layers = module.layers.values()
    with evaluating(module), torch.enable_grad(), setting(layers, shot_share=None):
        for batch in x.split(batch_size):
            for name, (effect, count) in _effects(module, batch, noise).items():
                effects[name] = effects.get(name, 0) + effect
                products[name] = count
    shares = {name: (v / products[name]).sqrt() for name, v in effects.items()}
    average = _mean(shares, products)
    shares = {name: share.clamp_min(LEAST * average) for name, share in shares.items()}
    raised = _mean(shares, products)
    for name, share in shares.items():
        found = tuple((share / raised).tolist()) if raised > 0 else None
        module.layers[name].shot_share = found


def _mean(shares: dict[str, Tensor], products: dict[str, float]) -> float:
    """Average over products."""
    cost = sum(float(share.sum()) * products[name] for name, share in shares.items())
    total = sum(share.numel() * products[name] for name, share in shares.items())
    return cost / total


def _effects(
    module: QuantumExecutedModule, x: Tensor, noise: NoiseSource
) -> dict[str, tuple[Tensor, float]]:
    """By layer: V of every output, summed over images, and the products of one output."""
    names = {id(layer): name for name, layer in module.layers.items()}
    images = len(x)
    calls: list[tuple[str, QuantumLayer, Tensor, Tensor, float]] = []

    def record(layer: QuantumLayer, x: Tensor) -> Tensor:
        mean, variance = layer.moments(x)
        assert variance is not None
        if not mean.requires_grad:
            mean.requires_grad_()
        mean.retain_grad()
        count = layer.products(x) / layer.weight.shape[0] / images
        calls.append((names[id(layer)], layer, mean, variance.detach(), count))
        return layer.disturbed(mean.clone(), variance.detach().clone(), noise)

    with run_on(module, record):
        best = module(x.to(next(module.parameters()).device)).topk(2).values
    (best[:, 0] - best[:, 1]).sum().backward(inputs=[call[2] for call in calls])
    found: dict[str, tuple[Tensor, float]] = {}
    for name, layer, mean, variance, count in calls:
        scale = layer.noise_scale().detach().flatten()
        moved = mean.grad if mean.grad is not None else torch.zeros_like(mean)
        effect = layer.linear_map.sum_by_channel(variance * moved.square()) * scale.square()
        before = found.get(name, (torch.zeros_like(effect), 0.0))
        found[name] = (before[0] + effect, before[1] + count)
    return found
