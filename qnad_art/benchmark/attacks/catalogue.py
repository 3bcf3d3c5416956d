"""The attacks by name: ART's class, settings that follow from ε, kind and norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["gradient", "query"]
Norm = Literal["inf", "2", "1", "0"]
Budget = Callable[[float, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class AttackEntry:
    """One attack, as an entry point of the group ``qnad_art.attacks`` names it.

    Args:
        path: ``module:class``.
        kind: whether the attack follows gradients or only asks for predictions.
        norm: norm that ε bounds or that the attack minimises; ``None`` if no norm describes it.
        budget: settings that follow from ε and the other settings; ``None`` if it takes no ε.
        settings: defaults that differ from those of the class.
        adapter: ``module:callable`` that wraps the attack if its interface or result differs from
            those of other attacks.
        probabilities: whether the attack needs probabilities instead of logits.
        single_step: whether the attack takes only one step.
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
    """Budget of an attack in which only ``eps`` depends on ε."""
    return {"eps": eps}


def steps(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Steps that add up to 2.5 ε, as in Madry et al. (2018)."""
    iterations = settings["max_iter"]
    valid = isinstance(iterations, int) and iterations > 0  # otherwise ART reports the fault
    return {"eps": eps, "eps_step": min(2.5 / iterations, 1.0) * eps if valid else eps}


def _halved(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The first step of AutoPGD, which halves its step as it runs (Croce & Hein 2020)."""
    return {"eps": eps, "eps_step": 2 * eps}


def _levels(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Budget in whole grey levels, of which there are 255."""
    return {"th": max(1, int(255 * eps + 1e-6))}


def _universal(eps: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """PGD on one image after the other, starting from the common perturbation so far."""
    inner = {"eps": eps, "eps_step": eps / 4, "max_iter": 10, "verbose": False}
    return {"eps": eps, "attacker": "pgd", "attacker_params": inner}


def _art(
    name: str,
    kind: Kind,
    norm: Norm | None,
    budget: Budget | None = None,
    adapter: str | None = None,
    /,
    probabilities: bool = False,
    single_step: bool = False,
    **settings: Any,
) -> AttackEntry:
    """An attack of ART, with its adapter in this package and the defaults of its settings."""
    path = f"art.attacks.evasion:{name}"
    if adapter is not None:
        adapter = f"qnad_art.benchmark.attacks.adapters:{adapter}"
    return AttackEntry(path, kind, norm, budget, settings, adapter, probabilities, single_step)


def _auto(name: str, loss: str) -> AttackEntry:
    """An attack with one restart, as in AutoAttack, and the loss that its name gives."""
    restart: dict[str, Any] = {"loss_type": loss, "nb_random_init": 1}
    return _art(name, "gradient", "inf", _halved, "HighestLoss", **restart)


def _ensemble(name: str) -> AttackEntry:
    return AttackEntry(f"qnad_art.benchmark.attacks.ensemble:{name}", "gradient", "inf", ball)


CE, DLR = "cross_entropy", "difference_logits_ratio"
_CONSTANT: dict[str, Any] = {"initial_const": 1.0, "binary_search_steps": 6, "learning_rate": 0.1}

# Gradients, within ε.
FGSM = _art("FastGradientMethod", "gradient", "inf", ball, single_step=True)
BIM = _art("BasicIterativeMethod", "gradient", "inf", steps, max_iter=20)
MIM = _art("MomentumIterativeMethod", "gradient", "inf", steps, max_iter=20)
PGD = _art(
    "ProjectedGradientDescent",
    "gradient",
    "inf",
    steps,
    "restarting",
    max_iter=20,
    num_random_init=1,
)
AUTOPGD_CE = _auto("AutoProjectedGradientDescent", CE)
AUTOPGD_DLR = _auto("AutoProjectedGradientDescent", DLR)
AUTO_CONJUGATE_GRADIENT = _auto("AutoConjugateGradient", DLR)
RESCALING_AUTO_CONJUGATE_GRADIENT = _auto("RescalingAutoConjugateGradient", DLR)
AUTOATTACK = _ensemble("AutoAttack")
AUTOATTACK_RAND = _ensemble("AutoAttackRand")
UNIVERSAL_PERTURBATION = _art(
    "UniversalPerturbation", "gradient", "inf", _universal, max_iter=5, delta=0.0
)
VIRTUAL_ADVERSARIAL = _art(
    "VirtualAdversarialMethod", "query", "2", ball, probabilities=True, max_iter=2
)
# Gradients, smallest perturbation.
DEEPFOOL = _art("DeepFool", "gradient", "2", max_iter=50)
CW_L0 = _art(
    "CarliniL0Method",
    "gradient",
    "0",
    initial_const=10.0,
    binary_search_steps=3,
    learning_rate=0.1,
)
CW_L2 = _art("CarliniL2Method", "gradient", "2", **_CONSTANT, max_iter=20)
CW_LINF = _art(
    "CarliniLInfMethod",
    "gradient",
    "inf",
    initial_const=1.0,
    largest_const=20.0,
    const_factor=4.0,
    decrease_factor=0.8,
    learning_rate=0.05,
    max_iter=30,
)
ELASTIC_NET = _art("ElasticNet", "gradient", "1", **_CONSTANT, max_iter=50)
NEWTONFOOL = _art("NewtonFool", "gradient", "2")
JSMA = _art("SaliencyMapMethod", "gradient", "0", None, "LikeliestTarget", theta=1.0, gamma=0.3)
# Predictions only.
SQUARE = _art("SquareAttack", "query", "inf", ball, max_iter=1000)
THRESHOLD = _art("ThresholdAttack", "query", "inf", _levels, es=1, max_iter=20)
HOPSKIPJUMP = _art("HopSkipJump", "query", "inf", None, "SeededStart", norm="inf")
BOUNDARY = _art("BoundaryAttack", "query", "2", None, "SeededStart", targeted=False, max_iter=200)
SIGN_OPT = _art("SignOPTAttack", "query", "2", targeted=False, max_iter=50, query_limit=5000)
ZOO = _art(
    "ZooAttack",
    "query",
    "2",
    max_iter=200,
    initial_const=10.0,
    learning_rate=0.1,
    # Its importance sampling and resizing are made for images of at least 32 pixels.
    use_resize=False,
    use_importance=False,
    batch_size=1,  # with more it mixes up the images
)
SIMBA = _art(
    "SimBA",
    "query",
    "2",
    None,
    "OneHot",
    probabilities=True,
    attack="px",
    epsilon=0.2,
    max_iter=1000,
    batch_size=1,
)
PIXEL = _art("PixelAttack", "query", "0", th=10, max_iter=20)
SPATIAL_TRANSFORMATION = _art(
    "SpatialTransformation",
    "query",
    None,
    max_translation=10.0,
    num_translations=3,
    max_rotation=30.0,
    num_rotations=5,
)
