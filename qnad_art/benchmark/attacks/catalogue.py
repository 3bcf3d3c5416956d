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
class AttackEntry:
    """One attack: what an entry point of the group ``qnad_art.attacks`` names.

    Args:
        path: ``module:class``.
        kind: whether it follows gradients or only asks for predictions.
        norm: bounded by ε, or made small; ``None`` where the change is no norm's business.
        budget: settings that follow from ε and the other settings; ``None``: it takes no ε.
        settings: defaults that differ from those of the class.
        adapter: ``module:callable`` that makes of the attack what is used, where ART's interface or
            result differs from the others'.
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


def ball(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Budget of an attack that takes ``eps`` and nothing that follows from it."""
    return {"eps": eps}


def steps(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
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


def _auto(art_class: str, loss: str) -> AttackEntry:
    """One restart, as in AutoAttack; the loss is the one that the name says."""
    return AttackEntry(
        f"{ART}{art_class}",
        "gradient",
        "inf",
        _halved,
        {"loss_type": loss, "nb_random_init": 1},
        adapter=f"{OWN}adapters:HighestLoss",
    )


CE, DLR = "cross_entropy", "difference_logits_ratio"
_CONSTANT = {"initial_const": 1.0, "binary_search_steps": 6, "learning_rate": 0.1}

# Gradients, within ε.
FGSM = AttackEntry(f"{ART}FastGradientMethod", "gradient", "inf", ball, single_step=True)
BIM = AttackEntry(f"{ART}BasicIterativeMethod", "gradient", "inf", steps, {"max_iter": 20})
MIM = AttackEntry(f"{ART}MomentumIterativeMethod", "gradient", "inf", steps, {"max_iter": 20})
PGD = AttackEntry(
    f"{ART}ProjectedGradientDescent",
    "gradient",
    "inf",
    steps,
    {"max_iter": 20, "num_random_init": 1},
    adapter=f"{OWN}adapters:restarting",
)
AUTOPGD_CE = _auto("AutoProjectedGradientDescent", CE)
AUTOPGD_DLR = _auto("AutoProjectedGradientDescent", DLR)
AUTO_CONJUGATE_GRADIENT = _auto("AutoConjugateGradient", DLR)
RESCALING_AUTO_CONJUGATE_GRADIENT = _auto("RescalingAutoConjugateGradient", DLR)
AUTOATTACK = AttackEntry(f"{OWN}ensemble:AutoAttack", "gradient", "inf", ball)
AUTOATTACK_RAND = AttackEntry(f"{OWN}ensemble:AutoAttackRand", "gradient", "inf", ball)
UNIVERSAL_PERTURBATION = AttackEntry(
    f"{ART}UniversalPerturbation", "gradient", "inf", _universal, {"max_iter": 5, "delta": 0.0}
)
VIRTUAL_ADVERSARIAL = AttackEntry(
    f"{ART}VirtualAdversarialMethod",
    "query",
    "2",
    ball,
    {"max_iter": 2},
    probabilities=True,
)
# Gradients, smallest perturbation.
DEEPFOOL = AttackEntry(f"{ART}DeepFool", "gradient", "2", settings={"max_iter": 50})
CW_L0 = AttackEntry(
    f"{ART}CarliniL0Method",
    "gradient",
    "0",
    settings={**_CONSTANT, "initial_const": 10.0, "binary_search_steps": 3},
)
CW_L2 = AttackEntry(
    f"{ART}CarliniL2Method", "gradient", "2", settings={**_CONSTANT, "max_iter": 20}
)
CW_LINF = AttackEntry(
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
)
ELASTIC_NET = AttackEntry(
    f"{ART}ElasticNet", "gradient", "1", settings={**_CONSTANT, "max_iter": 50}
)
NEWTONFOOL = AttackEntry(f"{ART}NewtonFool", "gradient", "2")
JSMA = AttackEntry(
    f"{ART}SaliencyMapMethod",
    "gradient",
    "0",
    settings={"theta": 1.0, "gamma": 0.3},
    adapter=f"{OWN}adapters:LikeliestTarget",
)
# Predictions only.
SQUARE = AttackEntry(f"{ART}SquareAttack", "query", "inf", ball, {"max_iter": 1000})
THRESHOLD = AttackEntry(f"{ART}ThresholdAttack", "query", "inf", _levels, {"es": 1, "max_iter": 20})
HOPSKIPJUMP = AttackEntry(
    f"{ART}HopSkipJump",
    "query",
    "inf",
    settings={"norm": "inf"},
    adapter=f"{OWN}adapters:SeededStart",
)
BOUNDARY = AttackEntry(
    f"{ART}BoundaryAttack",
    "query",
    "2",
    settings={"targeted": False, "max_iter": 200},
    adapter=f"{OWN}adapters:SeededStart",
)
SIGN_OPT = AttackEntry(
    f"{ART}SignOPTAttack",
    "query",
    "2",
    settings={"targeted": False, "max_iter": 50, "query_limit": 5000},
)
ZOO = AttackEntry(
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
)
SIMBA = AttackEntry(
    f"{ART}SimBA",
    "query",
    "2",
    settings={"attack": "px", "epsilon": 0.2, "max_iter": 1000, "batch_size": 1},
    adapter=f"{OWN}adapters:OneHot",
    probabilities=True,
)
PIXEL = AttackEntry(f"{ART}PixelAttack", "query", "0", settings={"th": 10, "max_iter": 20})
SPATIAL_TRANSFORMATION = AttackEntry(
    f"{ART}SpatialTransformation",
    "query",
    None,
    settings={
        "max_translation": 10.0,
        "num_translations": 3,
        "max_rotation": 30.0,
        "num_rotations": 5,
    },
)
