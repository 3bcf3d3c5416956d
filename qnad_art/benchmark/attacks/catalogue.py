"""The attacks by name: ART's class, how its settings follow from ε, and what it counts as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["gradient", "query"]
Norm = Literal["inf", "2", "1", "0"]
Budget = Callable[[float, Mapping[str, Any]], dict[str, Any]]

ART = "art.attacks.evasion:"
OWN = "qnad_art.benchmark.attacks."


@dataclass(frozen=True)
class Entry:
    """One attack.

    Args:
        path: ``module:class``.
        kind: whether it follows gradients or only asks for predictions.
        norm: bounded by ε, or made small; ``None`` where the change is no norm's business.
        budget: settings that follow from ε and the other settings; ``None``: it takes no ε.
        settings: defaults that differ from those of the class.
        adapter: ``module:class`` around the attack, where ART's interface differs from the others'.
        probabilities: it wants probabilities, not logits.
        single_step: it takes one step only.
    """

    path: str
    kind: Kind
    norm: Norm | None
    budget: Budget | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    probabilities: bool = False
    single_step: bool = False


def _ball(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"eps": eps}


def _steps(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Steps that reach the border two and a half times, as Madry et al. (2018)."""
    iterations = settings["max_iter"]
    valid = isinstance(iterations, int) and iterations > 0  # else ART says what is wrong
    return {"eps": eps, "eps_step": min(2.5 / iterations, 1.0) * eps if valid else eps}


def _halved(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The first step of AutoPGD, which halves it as it goes (Croce & Hein 2020)."""
    return {"eps": eps, "eps_step": 2 * eps}


def _levels(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Whole grey levels of 255."""
    return {"th": max(1, int(255 * eps + 1e-6))}


def _universal(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """PGD on one image after the other, from the perturbation that is common so far."""
    inner = {"eps": eps, "eps_step": eps / 4, "max_iter": 10, "verbose": False}
    return {"eps": eps, "attacker": "pgd", "attacker_params": inner}


def _auto(art_class: str, loss: str) -> Entry:
    """One restart, as in AutoAttack; the loss is the one that the name says."""
    return Entry(
        f"{ART}{art_class}",
        "gradient",
        "inf",
        _halved,
        {"loss_type": loss, "nb_random_init": 1},
        adapter=f"{OWN}adapters:HighestLoss",
    )


CE, DLR = "cross_entropy", "difference_logits_ratio"
_CONSTANT = {"initial_const": 1.0, "binary_search_steps": 6, "learning_rate": 0.1}

ATTACKS: dict[str, Entry] = {
    # Gradients, within ε.
    "fgsm": Entry(f"{ART}FastGradientMethod", "gradient", "inf", _ball, single_step=True),
    "bim": Entry(f"{ART}BasicIterativeMethod", "gradient", "inf", _steps, {"max_iter": 20}),
    "mim": Entry(f"{ART}MomentumIterativeMethod", "gradient", "inf", _steps, {"max_iter": 20}),
    "pgd": Entry(
        f"{ART}ProjectedGradientDescent",
        "gradient",
        "inf",
        _steps,
        {"max_iter": 20, "num_random_init": 1},
    ),
    "autopgd-ce": _auto("AutoProjectedGradientDescent", CE),
    "autopgd-dlr": _auto("AutoProjectedGradientDescent", DLR),
    "auto-conjugate-gradient": _auto("AutoConjugateGradient", DLR),
    "rescaling-auto-conjugate-gradient": _auto("RescalingAutoConjugateGradient", DLR),
    "autoattack": Entry(f"{OWN}ensemble:AutoAttack", "gradient", "inf", _ball),
    "autoattack-rand": Entry(f"{OWN}ensemble:AutoAttackRand", "gradient", "inf", _ball),
    "universal-perturbation": Entry(
        f"{ART}UniversalPerturbation", "gradient", "inf", _universal, {"max_iter": 5, "delta": 0.0}
    ),
    "virtual-adversarial": Entry(
        f"{ART}VirtualAdversarialMethod",
        "query",
        "2",
        _ball,
        {"max_iter": 2},
        probabilities=True,
    ),
    # Gradients, smallest perturbation.
    "deepfool": Entry(f"{ART}DeepFool", "gradient", "2", settings={"max_iter": 50}),
    "cw-l0": Entry(
        f"{ART}CarliniL0Method",
        "gradient",
        "0",
        settings={**_CONSTANT, "initial_const": 10.0, "binary_search_steps": 3},
    ),
    "cw-l2": Entry(
        f"{ART}CarliniL2Method", "gradient", "2", settings={**_CONSTANT, "max_iter": 20}
    ),
    "cw-linf": Entry(
        f"{ART}CarliniLInfMethod",
        "gradient",
        "inf",
        settings={
            "initial_const": 1.0,
            "largest_const": 20.0,
            "const_factor": 4.0,
            "decrease_factor": 0.8,
            "learning_rate": 0.05,
            "max_iter": 30,
        },
    ),
    "elastic-net": Entry(
        f"{ART}ElasticNet", "gradient", "1", settings={**_CONSTANT, "max_iter": 50}
    ),
    "newtonfool": Entry(f"{ART}NewtonFool", "gradient", "2"),
    "jsma": Entry(
        f"{ART}SaliencyMapMethod",
        "gradient",
        "0",
        settings={"theta": 1.0, "gamma": 0.3},
        adapter=f"{OWN}adapters:LikeliestTarget",
    ),
    # Predictions only.
    "square": Entry(f"{ART}SquareAttack", "query", "inf", _ball, {"max_iter": 1000}),
    "threshold": Entry(f"{ART}ThresholdAttack", "query", "inf", _levels, {"es": 1, "max_iter": 20}),
    "hopskipjump": Entry(f"{ART}HopSkipJump", "query", "inf", settings={"norm": "inf"}),
    "boundary": Entry(
        f"{ART}BoundaryAttack", "query", "2", settings={"targeted": False, "max_iter": 200}
    ),
    "sign-opt": Entry(
        f"{ART}SignOPTAttack",
        "query",
        "2",
        settings={"targeted": False, "max_iter": 50, "query_limit": 5000},
    ),
    "zoo": Entry(
        f"{ART}ZooAttack",
        "query",
        "2",
        settings={
            "max_iter": 200,
            "initial_const": 10.0,
            "learning_rate": 0.1,
            # Its importance sampling and resizing are for images of 32 pixels and more.
            "use_resize": False,
            "use_importance": False,
            "batch_size": 1,  # with more it mixes up the images
        },
    ),
    "simba": Entry(
        f"{ART}SimBA",
        "query",
        "2",
        settings={"attack": "px", "epsilon": 0.2, "max_iter": 1000, "batch_size": 1},
        adapter=f"{OWN}adapters:OneHot",
        probabilities=True,
    ),
    "pixel": Entry(f"{ART}PixelAttack", "query", "0", settings={"th": 10, "max_iter": 20}),
    "spatial-transformation": Entry(
        f"{ART}SpatialTransformation",
        "query",
        None,
        settings={
            "max_translation": 10.0,
            "num_translations": 3,
            "max_rotation": 30.0,
            "num_rotations": 5,
        },
    ),
}
