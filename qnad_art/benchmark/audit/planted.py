"""Planted adversarial examples: does the attack find examples that certainly exist?

The binarisation test (Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness
Evaluations") fits a linear readout of the defended network that separates points inside the ε-ball
around an image from one point on its surface. That point is an adversarial example of the readout.
A working attack finds such an example, and random guesses hardly do.

The readout uses the logits, not hidden features: every classifier has logits, and they come after
everything that a defence may do to hide gradients, including rounding of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qnad_art.benchmark.audit.probes import Iterative, Probe
from qnad_art.benchmark.records import Bools
from qnad_art.benchmark.threats.victim import Images, derived, predictions, with_module
from qnad_art.errors import InvalidInputError

Floats = npt.NDArray[np.float64]

IMAGES = 24
INNER = 48
"""Number of points inside the ball, in addition to the image."""
INNER_RADIUS = 0.95
"""In units of ε."""
CORNERS = 32
"""Number of corners of the ball; the one that stands out most is planted."""
BLOCKS = 4
"""Parts of each axis with constant signs in a corner, since pixel noise hardly moves logits."""
CLOSENESS, CLOSENESS_IN_NOISE = 0.9, 0.7
"""Position of the decision boundary between the nearest inner point (0) and the planted one (1)."""
FEATURE_DRAWS = 8
"""Number of draws over which logits are averaged."""
EOT_SAMPLES = 5
"""Number of draws over which the attack averages its gradients if there is noise."""
NEVER = -30.0
"""Logit of a third class, because ART treats two classes as a special case."""


@dataclass(frozen=True)
class Planted:
    """Shares of the ``images`` for which the attack and as many random guesses found an example."""

    images: int
    found: float
    guessed: float


class Readouts(nn.Module):
    """One linear readout for every image of a batch, which must always be whole and in order.

    Args:
        module: module that returns logits (N, classes).
        weights: (N, classes).
        thresholds: (N,).
    """

    def __init__(self, module: nn.Module, weights: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        self.module, self.count = module, len(weights)
        self.register_buffer("weights", weights)
        self.register_buffer("thresholds", thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3) of the classes inside, planted and neither."""
        if len(x) != self.count:
            raise InvalidInputError(f"{len(x)} images for {self.count} readouts.")
        beyond = (self.module(x) * self.weights).sum(1) - self.thresholds
        return torch.stack(
            [torch.zeros_like(beyond), beyond, beyond.new_full(x.shape[:1], NEVER)], 1
        )


def planted_examples(probe: Probe, eps: float) -> Planted:
    """Plant an example at L∞ distance ``eps`` from every image that allows it, and attack."""
    count = min(IMAGES, len(probe.x), probe.protocol.batch_size)
    x = probe.x[:count]
    rng = np.random.default_rng(derived(probe.seed, "planted"))
    inner = np.stack([x, *(_inside(probe, x, eps, rng) for _ in range(INNER))])
    corners = np.stack([_corner(probe, x, eps, rng) for _ in range(CORNERS)])
    weights, thresholds, chosen = _readouts(
        _logits(probe, inner, "features"),
        _logits(probe, corners, "features"),
        CLOSENESS_IN_NOISE if probe.stochastic else CLOSENESS,
    )
    corner = corners[chosen, np.arange(count)]

    def beyond(points: Images, what: str) -> Bools:
        """Which of the points (…, N, *shape) the readouts classify as planted, on fresh draws."""
        scores = (_logits(probe, points, what) * weights).sum(-1)
        return np.asarray(scores > thresholds)

    check = beyond(np.stack([corner, x]), "check")
    holds = np.asarray(check[0] & ~check[1])
    if not holds.any():
        return Planted(0, 0.0, 0.0)
    found = beyond(_attacked(probe, x, eps, weights, thresholds)[None], "score")[0]
    guesses = [
        (_inside if guess % 2 else _corner)(probe, x, eps, rng)
        for guess in range(probe.protocol.audit_steps)
    ]
    guessed = np.asarray(beyond(np.stack(guesses), "score").any(axis=0))
    return Planted(int(holds.sum()), float(found[holds].mean()), float(guessed[holds].mean()))


def _readouts(
    inner: Floats, corners: Floats, closeness: float
) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
    """Fisher's discriminants of the corners that stand out most, and these corners.

    Args:
        inner, corners: logits (points, N, classes).
        closeness: closeness of the thresholds to the chosen corners.

    Returns:
        Weights (N, classes), thresholds (N,), and the numbers of the corners (N,).
    """
    center = inner.mean(0)
    covariance = np.einsum("pni,pnj->nij", inner - center, inner - center) / len(inner)
    spread = covariance.trace(axis1=1, axis2=2) / covariance.shape[-1]
    # Shrunk, because there may be more classes than points. Constant logits give no readout.
    ridge = (0.1 * spread + 1e-30)[:, None, None] * np.eye(covariance.shape[-1])
    away = np.moveaxis(corners - center, 0, -1)  # (N, classes, points)
    directions = np.linalg.solve(covariance + ridge, away)
    chosen = (directions * away).sum(1).argmax(1)
    weights = np.take_along_axis(directions, chosen[:, None, None], 2)[..., 0]
    weights /= np.maximum(np.abs(weights).sum(1, keepdims=True), 1e-30)
    scores = (inner * weights).sum(-1)
    weights /= np.maximum(scores.std(0), 1e-30)[:, None]
    nearest = (inner * weights).sum(-1).max(0)
    planted = (corners[chosen, np.arange(len(chosen))] * weights).sum(-1)
    gap = planted - nearest
    return weights, np.where(gap > 0, nearest + closeness * gap, np.inf), chosen


def _attacked(probe: Probe, x: Images, eps: float, weights: Floats, thresholds: Floats) -> Images:
    place = probe.victim.device
    # A readout that does not hold is not counted, but infinity would spoil the gradients.
    finite = np.where(np.isfinite(thresholds), thresholds, 0.0)
    readouts = Readouts(
        probe.victim.model,
        torch.as_tensor(weights, dtype=torch.float32, device=place),
        torch.as_tensor(finite, dtype=torch.float32, device=place),
    )
    classifier = with_module(probe.victim, readouts)
    classifier.nb_classes = 3
    inside = np.zeros(len(x), dtype=np.int64)
    own = Probe(classifier, x, inside, probe.protocol, derived(probe.seed, "planted"))
    samples = EOT_SAMPLES if probe.stochastic else 1
    return own.examples(classifier, Iterative(probe.protocol.audit_steps), eps, samples)


def _logits(probe: Probe, points: Images, what: str) -> Floats:
    """Mean logits (…, N, classes) of points (…, N, *shape)."""
    flat = points.reshape(-1, *probe.x.shape[1:])
    outputs = [
        predictions(
            probe.victim,
            flat,
            seed=derived(probe.seed, "planted", what, draw),
            batch_size=probe.protocol.batch_size,
        )
        for draw in range(FEATURE_DRAWS if probe.stochastic else 1)
    ]
    mean = np.mean(outputs, axis=0, dtype=np.float64)
    return np.asarray(mean.reshape(*points.shape[: -(probe.x.ndim - 1)], -1))


def _inside(probe: Probe, x: Images, eps: float, rng: np.random.Generator) -> Images:
    step = rng.uniform(-INNER_RADIUS * eps, INNER_RADIUS * eps, x.shape)
    return _valid(probe, x + step)


def _corner(probe: Probe, x: Images, eps: float, rng: np.random.Generator) -> Images:
    parts = [min(BLOCKS, size) for size in x.shape[1:]]
    signs = rng.choice([-1.0, 1.0], (len(x), *parts))
    for axis, size in enumerate(x.shape[1:], start=1):
        signs = np.repeat(signs, -(-size // signs.shape[axis]), axis=axis)
        signs = signs.take(range(size), axis=axis)
    return _valid(probe, x + eps * signs)


def _valid(probe: Probe, x: Floats) -> Images:
    bounds = probe.victim.clip_values
    return np.asarray(x if bounds is None else np.clip(x, *bounds), dtype=np.float32)
