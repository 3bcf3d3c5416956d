"""The gates of the audit that need attacks of their own; each judges a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import torch

from qnad_art.benchmark.audit.planted import planted_examples
from qnad_art.benchmark.audit.probes import Probe
from qnad_art.benchmark.records import Bools, Gate, Verdict
from qnad_art.benchmark.statistics.intervals import higher_by_chance, wilson
from qnad_art.benchmark.threats.victim import (
    Images,
    derived,
    differ,
    in_own_precision,
    predictions,
    reseed,
    seeded,
    unsaturated,
)

SIGNIFICANCE = 0.01
"""Significance level of a gate; its comparisons share it (Bonferroni)."""
TOLERANCE = 0.01
"""A difference in accuracy up to this fails no gate, however many images show it."""
ZERO_GRADIENTS = 0.1
"""Share of images that may have no gradient, since softmax in float32 saturates for a few."""
PLANTED_FOUND = 0.95
"""Share of the planted examples that must be found (Zimmermann et al. 2022)."""
GUESSED, TOO_FEW = 0.5, 8
"""The gate is not run if guessing finds a larger share, or if there are fewer examples."""
GRADIENT_DRAWS = 5

DEMANDS: Final[Mapping[str, str]] = {
    "predictions vary": "logits differ between images, and more than one class is predicted",
    "noise in the gradients' pass": (
        "in the same draw `predict` and the module that attacks differentiate give the same "
        "logits, and gradients have noise where predictions have"
    ),
    "gradients": "no gradient is NaN or infinite, and at most 10 % of the images have none",
    "unbounded ε": "with ε as large as the inputs' range, accuracy is at chance or below",
    "falls in ε": "accuracy falls as ε grows",
    "falls in steps": "accuracy falls with more steps",
    "falls in restarts": "accuracy falls with more restarts",
    "falls in EOT samples": "accuracy falls with gradients averaged over more draws",
    "iterative against single-step": "the iterative attack is at least as strong as one step",
    "planted examples": "at least 95 % of the adversarial examples that were planted are found",
}

Figures = dict[str, float | None]


def not_run(name: str, reason: str, figures: Figures | None = None) -> Gate:
    """A gate that could not be judged."""
    demand = DEMANDS[name]
    return Gate(name=name, verdict="not run", demand=demand, figures=figures or {}, reason=reason)


def judged(name: str, figures: Figures, fault: str = "") -> Gate:
    """A gate that fails if there is a fault."""
    verdict: Verdict = "fail" if fault else "pass"
    return Gate(name=name, verdict=verdict, demand=DEMANDS[name], figures=figures, reason=fault)


class Rise(NamedTuple):
    """The largest rise of accuracy among ``pairs``: by how much, where, and whether it is real."""

    size: float
    where: int
    real: bool


def worst_rise(pairs: Sequence[tuple[Bools, Bools]], seed: int) -> Rise:
    """The largest rise from first to second; it is real if noise and tolerance do not explain one.

    Args:
        pairs: outcomes (draws, images) on the same images; the second attack should be stronger.
        seed: seed of the permutation tests.
    """
    rises = [float(second.mean() - first.mean()) for first, second in pairs]
    where = int(np.argmax(rises))
    real = any(
        rise > TOLERANCE and higher_by_chance(second, first, seed=seed) < SIGNIFICANCE / len(pairs)
        for rise, (first, second) in zip(rises, pairs, strict=True)
    )
    return Rise(rises[where], where, real)


def _falls(name: str, probe: Probe, outcomes: Mapping[str, Bools]) -> Gate:
    """Judge whether accuracy falls from each of the outcomes to the next."""
    series = list(outcomes.values())
    rise = worst_rise(list(pairwise(series)), probe.seed)
    figures: Figures = {f"accuracy at {what}": float(c.mean()) for what, c in outcomes.items()}
    figures["largest rise"] = rise.size
    reason = f"accuracy rises by {rise.size:.1%}, which is more than noise" if rise.real else ""
    return judged(name, figures, reason)


def predictions_vary(probe: Probe) -> Gate:
    """Constant logits tell an attack nothing, and their accuracy is that of one class."""
    logits = _outputs(probe, 0)
    classes = len(np.unique(logits.argmax(1)))
    spread = float(np.ptp(logits, axis=0).max())
    figures: Figures = {"classes predicted": float(classes), "largest range of a logit": spread}
    fault = "every image gets the same class" if classes == 1 else ""
    if len(np.unique(probe.y)) == 1:
        return not_run("predictions vary", "all images are of one class", figures)
    if not differ(logits, np.broadcast_to(logits[:1], logits.shape)):
        fault = "every image gets the same logits"
    return judged("predictions vary", figures, fault)


def noise_in_gradients(probe: Probe) -> Gate:
    """`predict` against the module that attacks differentiate, between ART's processing."""
    name = "noise in the gradients' pass"
    scored, attacked = _outputs(probe, 0), _module_outputs(probe, 0)
    others = _outputs(probe, 1), _module_outputs(probe, 1)
    scale = max(float(np.abs(scored).max()), 1e-30)
    figures: Figures = {
        "largest difference, relative": float(np.abs(scored - attacked).max()) / scale,
        "noise of predict": float(np.std(np.stack([scored, others[0]]), axis=0).mean()),
        "noise of the module": float(np.std(np.stack([attacked, others[1]]), axis=0).mean()),
    }
    if differ(scored, attacked):
        return judged(name, figures, "`predict` does something that the module does not")
    gradients = _gradients(probe, GRADIENT_DRAWS) if probe.stochastic else None
    if gradients is not None and not any(differ(gradients[0], g) for g in gradients[1:]):
        return judged(name, figures, "predictions have noise, gradients have none")
    return judged(name, figures)


def gradients_exist(probe: Probe) -> Gate:
    """Gradients of the loss on the images, and their signal-to-noise ratio if they have noise."""
    found = _gradients(probe, GRADIENT_DRAWS if probe.stochastic else 1)
    if found is None:
        return judged("gradients", {}, "the loss cannot be differentiated")
    finite = np.isfinite(found).all(axis=(0, 2))
    absent = ~found.any(axis=(0, 2))
    with unsaturated(probe.victim):
        through = _gradients(probe, 1)
    figures: Figures = {
        "share NaN or infinite": float((~finite).mean()),
        "share zero": float(absent.mean()),
        "share zero, through saturation": (
            None if through is None else float((~through.any(axis=(0, 2))).mean())
        ),
        "signal-to-noise ratio": _signal_to_noise(found[:, finite & ~absent]),
    }
    fault = ""
    if not finite.all():
        fault = "some gradients are NaN or infinite"
    elif absent.mean() > ZERO_GRADIENTS:
        fault = f"{absent.mean():.0%} of the images have no gradient"
    return judged("gradients", figures, fault)


def unbounded(probe: Probe) -> Gate:
    """With unlimited ε, every image can be turned into any other."""
    found, chance = probe.by_budget[-1], 1 / probe.victim.nb_classes
    low = wilson(round(found.correct.mean(0).sum()), len(probe.y)).low
    figures: Figures = {"accuracy": found.accuracy, "chance": chance, "ε": probe.budgets[-1]}
    fault = f"accuracy is still {found.accuracy:.1%}, chance is {chance:.1%}"
    return judged("unbounded ε", figures, fault if low > chance else "")


def falls_in_budget(probe: Probe) -> Gate:
    """From the clean images to unbounded ε."""
    outcomes = {"ε 0": probe.clean.correct}
    for eps, found in zip(probe.budgets, probe.by_budget, strict=True):
        outcomes[f"ε {eps:.4g}"] = found.correct
    return _falls("falls in ε", probe, outcomes)


def falls_in_steps(probe: Probe) -> Gate:
    """Fewer and larger steps should do no better."""
    steps = probe.protocol.audit_steps
    outcomes = {
        f"{fewer} steps": probe.under(probe.budgets[probe.middle], steps=fewer).correct
        for fewer in sorted({max(2, steps // 4), max(2, steps // 2)})
    }
    outcomes[f"{steps} steps"] = probe.by_budget[probe.middle].correct
    return _falls("falls in steps", probe, outcomes)


def falls_in_restarts(probe: Probe) -> Gate:
    """One random start against several."""
    several = probe.under(probe.budgets[probe.middle], restarts=4)
    outcomes = {"1 start": probe.by_budget[probe.middle].correct, "4 starts": several.correct}
    return _falls("falls in restarts", probe, outcomes)


def falls_in_samples(probe: Probe) -> Gate:
    """One draw per gradient against ten."""
    if not probe.stochastic:
        reason = "the defence is deterministic: there is nothing to average"
        return not_run("falls in EOT samples", reason)
    several = probe.under(probe.budgets[probe.middle], samples=10)
    outcomes = {"1 sample": probe.by_budget[probe.middle].correct, "10 samples": several.correct}
    return _falls("falls in EOT samples", probe, outcomes)


def iterative_against_single(probe: Probe) -> Gate:
    """PGD against FGSM at every bounded budget."""
    pairs = [
        (probe.under(eps, steps=1).correct, found.correct)
        for eps, found in zip(probe.budgets[:-1], probe.by_budget[:-1], strict=True)
    ]
    rise = worst_rise(pairs, probe.seed)
    single, iterative = pairs[probe.middle]
    figures: Figures = {
        f"single-step at ε {probe.budgets[probe.middle]:.4g}": float(single.mean()),
        f"iterative at ε {probe.budgets[probe.middle]:.4g}": float(iterative.mean()),
        "largest advantage of one step": rise.size,
    }
    reason = f"one step is stronger by {rise.size:.1%}, more than noise" if rise.real else ""
    return judged("iterative against single-step", figures, reason)


def planted_found(probe: Probe) -> Gate:
    """See :mod:`~.audit.planted`; noise may leave nothing to plant at small budgets."""
    for eps in probe.budgets[probe.middle : -1]:
        planted = planted_examples(probe, eps)
        if planted.images >= TOO_FEW:
            break
    figures: Figures = {
        "images": float(planted.images),
        "found": planted.found,
        "found by guessing": planted.guessed,
        "ε": eps,
    }
    if planted.images < TOO_FEW:
        reason = f"only {planted.images} images have a point that their logits set apart"
        return not_run("planted examples", reason, figures)
    if planted.guessed > GUESSED:
        reason = f"guessing finds {planted.guessed:.0%} of them: too easy to tell anything"
        return not_run("planted examples", reason, figures)
    found = round(planted.found * planted.images)
    fault = f"only {planted.found:.0%} of the planted examples are found"
    too_few = wilson(found, planted.images).high < PLANTED_FOUND
    return judged("planted examples", figures, fault if too_few else "")


def _outputs(probe: Probe, draw: int) -> Images:
    """The logits that scoring uses."""
    seed = derived(probe.seed, "audit draw", draw)
    return predictions(probe.victim, probe.x, seed=seed, batch_size=len(probe.x))


def _module_outputs(probe: Probe, draw: int) -> Images:
    """The logits that attacks differentiate, in the same draw, without the classifier's methods."""
    victim, seed = probe.victim, derived(probe.seed, "audit draw", draw)
    with seeded(seed), torch.no_grad():
        reseed(victim, seed)
        x, _ = victim._apply_preprocessing(probe.x, y=None, fit=False)
        victim.model.eval()
        outputs = victim.model(torch.as_tensor(x, dtype=torch.float32, device=victim.device))
        found: Images = victim._apply_postprocessing(outputs.cpu().numpy(), fit=False)
    return found


def _gradients(probe: Probe, draws: int) -> Images | None:
    """Gradients (draws, images, pixels) as attacks get them; ``None`` if there are none."""
    labels = np.eye(probe.victim.nb_classes, dtype=np.float32)[probe.y]
    found = []
    for draw in range(draws):
        seed = derived(probe.seed, "audit gradient", draw)
        with seeded(seed), in_own_precision(probe.victim):
            reseed(probe.victim, seed)
            try:
                gradient = probe.victim.loss_gradient(probe.x, labels)
            except (RuntimeError, ValueError):  # by torch and ART, for a graph that is cut
                return None
        found.append(np.asarray(gradient).reshape(len(probe.x), -1))
    return np.stack(found)


def _signal_to_noise(gradients: Images) -> float | None:
    """Median over images of |mean|² to |deviation|²; ``None`` without noise, or without images."""
    draws = len(gradients)
    if draws == 1 or gradients.shape[1] == 0:
        return None
    noise = gradients.var(axis=0, ddof=1, dtype=np.float64).sum(-1)
    signal = np.square(gradients.mean(0, dtype=np.float64)).sum(-1) - noise / draws
    noisy = noise > 0
    if not noisy.any():
        return None
    return float(np.median(np.maximum(signal[noisy], 0) / noise[noisy]))
