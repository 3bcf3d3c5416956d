"""ART's evasion attacks, each with settings that end soon, and what each of them promises."""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import art.attacks.evasion as evasion
import numpy as np
import torch
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier

EPS = 0.25
Generate = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


def ordinary(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return attack.generate(x, y)


def single(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For attacks that take one image a call."""
    return np.concatenate([attack.generate(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])


def guided(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For attacks whose second argument is the image to look like."""
    return attack.generate(x, x[::-1].copy())


def guided_briefly(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return attack.generate(x, 1 - x, maxiter=1, maxfun=1)


def patched(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For attacks that make a patch: the images with the patch on."""
    patch, _ = attack.generate(x, y)
    return attack.apply_patch(x, scale=0.5, patch_external=patch).astype(np.float32)


def weighted(attack: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For attacks on tables, of which each pixel is a column."""
    attack.fit_importances(importance_array=np.ones(x[0].size), normalize=True)
    return attack.generate(x.reshape(len(x), -1), y).reshape(x.shape).astype(np.float32)


@dataclass(frozen=True)
class Attack:
    """One attack of ART's: its class, its settings, and what its examples keep to.

    ``order``: of the norm in which EPS bounds the change, ``None`` where nothing does. ``aims``:
    the labels it takes are those that it wants. ``probabilities``: it refuses logits. ``rows``: it
    wants images as rows. ``count``: of images. ``small``: it asks anew for every pixel, so small
    images must do. ``weak``: with so few steps it may find nothing. ``frozen``: it asserts that a
    prediction repeats.
    """

    art: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    order: float | None = None
    aims: bool = False
    probabilities: bool = False
    rows: bool = False
    generate: Generate = ordinary
    count: int = 2
    small: bool = False
    weak: bool = False
    frozen: bool = False
    make: Callable[[Any], dict[str, Any]] = lambda classifier: {}
    """Further settings that follow from the classifier."""

    def on(self, classifier: Any) -> Any:
        """The attack on ``classifier``."""
        art_class = attack_class(self.art)
        parameters = inspect.signature(art_class.__init__).parameters
        quiet = {"verbose": False} if "verbose" in parameters else {}
        return art_class(classifier, **quiet, **self.settings, **self.make(classifier))

    def examples(self, classifier: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Adversarial examples of ``x`` (N, C, H, W), whose classes are ``y`` (N,)."""
        rows = np.eye(classifier.nb_classes, dtype=np.float32)
        return self.generate(self.on(classifier), x, rows[(y + self.aims) % len(rows)])


@cache
def attack_class(name: str) -> Any:
    """ART's class; Brendel & Bethge's is there with numba only, and here without its compiler."""
    if name != "BrendelBethgeAttack":
        return getattr(evasion, name)

    def interpreted(spec: Any) -> Callable[[type], type]:
        def same(given: Any) -> type:
            given.class_type = SimpleNamespace(instance_type=None)
            return given

        return same

    experimental: Any = ModuleType("numba.experimental")
    experimental.jitclass = interpreted
    found = importlib.util.find_spec("art.attacks.evasion.brendel_bethge")
    module: Any = importlib.util.module_from_spec(found)
    stand_in = {"numba": ModuleType("numba"), "numba.experimental": experimental}
    with mock.patch.dict(sys.modules, stand_in):
        found.loader.exec_module(module)
    return module.BrendelBethgeAttack


@contextmanager
def reproducible(seed: int = 0) -> Iterator[None]:
    """ART's attacks draw from four global generators; what two of them miss is made up for."""
    state, states = random.getstate(), np.random.get_state()  # noqa: NPY002

    class Seeded(np.random.RandomState):  # what some attacks make afresh, from no seed
        def __init__(self, own: Any = None) -> None:
            super().__init__(seed if own is None else own)

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(seed)
        stack.enter_context(mock.patch.object(np.random, "RandomState", Seeded))
        # GeoDA calls what NumPy 2 has no more, AutoAttack imports what ART does not install.
        stack.enter_context(mock.patch.object(np, "mat", np.asmatrix, create=True))
        stack.enter_context(mock.patch.dict(sys.modules, {"multiprocess": multiprocessing}))
        yield
    random.setstate(state)
    np.random.set_state(states)  # noqa: NPY002


PGD = {"eps": EPS, "eps_step": 0.1, "max_iter": 3}
STRONG = {"max_iter": 4, "binary_search_steps": 2, "initial_const": 10.0, "learning_rate": 0.1}
AUTO = {**PGD, "nb_random_init": 1, "batch_size": 8}
CE, DLR = "cross_entropy", "difference_logits_ratio"
PATCH = {"rotation_max": 0, "scale_min": 0.5, "scale_max": 0.6, "max_iter": 2, "batch_size": 8}


def _auto(art: str, loss: str) -> Attack:
    return Attack(art, {**AUTO, "loss_type": loss}, np.inf)


def _members(classifier: Any) -> dict[str, Any]:
    names = ("AutoPGD CE", "AutoPGD DLR", "DeepFool", "Square")
    return {"attacks": [ATTACKS[name].on(classifier) for name in names]}


ATTACKS: dict[str, Attack] = {
    "FGSM": Attack("FastGradientMethod", {"eps": EPS}, np.inf),
    "FGSM L2": Attack("FastGradientMethod", {"eps": EPS, "norm": 2}, 2),
    "BIM": Attack("BasicIterativeMethod", PGD, np.inf),
    "MIM": Attack("MomentumIterativeMethod", PGD, np.inf),
    "PGD": Attack("ProjectedGradientDescent", {**PGD, "num_random_init": 1}, np.inf),
    "PGD numpy": Attack("ProjectedGradientDescentNumpy", PGD, np.inf),
    "PGD torch": Attack("ProjectedGradientDescentPyTorch", PGD, np.inf),
    "PGD torch L2": Attack("ProjectedGradientDescentPyTorch", {**PGD, "norm": 2}, 2),
    "AutoPGD CE": _auto("AutoProjectedGradientDescent", CE),
    "AutoPGD DLR": _auto("AutoProjectedGradientDescent", DLR),
    "ACG CE": _auto("AutoConjugateGradient", CE),
    "ACG DLR": _auto("AutoConjugateGradient", DLR),
    "ReACG CE": _auto("RescalingAutoConjugateGradient", CE),
    "ReACG DLR": _auto("RescalingAutoConjugateGradient", DLR),
    "AutoAttack": Attack("AutoAttack", {"eps": EPS, "batch_size": 8}, np.inf, make=_members),
    "Brendel & Bethge": Attack(
        "BrendelBethgeAttack",
        {"steps": 2, "init_size": 20, "binary_search_steps": 3, "batch_size": 8, "norm": 2},
        count=1,
        small=True,
        frozen=True,
    ),
    "Universal": Attack(
        "UniversalPerturbation",
        {
            "attacker": "fgsm",
            "attacker_params": {"eps": EPS},
            "eps": EPS,
            "delta": 0.5,
            "max_iter": 1,
        },
        np.inf,
    ),
    "Universal targeted": Attack(
        "TargetedUniversalPerturbation",
        {
            "attacker": "fgsm",
            "attacker_params": {"eps": EPS, "targeted": True},
            "eps": EPS,
            "delta": 0.5,
            "max_iter": 1,
        },
        np.inf,
        aims=True,
        weak=True,
    ),
    "Virtual adversarial": Attack(
        "VirtualAdversarialMethod",
        {"eps": EPS, "max_iter": 1, "finite_diff": 0.1},
        2,
        probabilities=True,
        small=True,
    ),
    "DeepFool": Attack("DeepFool", {"max_iter": 5, "nb_grads": 3}),
    "C&W L0": Attack("CarliniL0Method", {**STRONG, "max_iter": 3, "warm_start": False}, count=1),
    "C&W L2": Attack("CarliniL2Method", STRONG),
    "C&W Linf": Attack(
        "CarliniLInfMethod",
        {"max_iter": 10, "learning_rate": 0.3, "initial_const": 1.0, "largest_const": 20.0},
    ),
    "ElasticNet": Attack("ElasticNet", STRONG),
    "NewtonFool": Attack("NewtonFool", {"max_iter": 3}),
    "JSMA": Attack("SaliencyMapMethod", {"theta": 0.5, "gamma": 0.3}, aims=True),
    "LowProFool": Attack(
        "LowProFool",
        {"n_steps": 3, "threshold": None},
        aims=True,
        rows=True,
        generate=weighted,
        weak=True,
    ),
    "Feature adversaries numpy": Attack(
        "FeatureAdversariesNumpy",
        {"delta": EPS, "layer": 0},
        np.inf,
        generate=guided_briefly,
        count=1,
        small=True,
    ),
    "Feature adversaries torch": Attack(
        "FeatureAdversariesPyTorch",
        {"delta": EPS, "layer": -1, "max_iter": 3, "step_size": 0.1},
        np.inf,
        generate=guided,
    ),
    "Frame saliency": Attack(
        "FrameSaliencyAttack",
        {"frame_index": 2, "method": "one_shot"},  # rows of the image for frames
        np.inf,
        make=lambda classifier: {"attacker": ATTACKS["PGD numpy"].on(classifier)},
    ),
    "Shadow": Attack("ShadowAttack", {"nb_steps": 3, "batch_size": 8}, aims=True, generate=single),
    "Wasserstein": Attack(
        "Wasserstein",
        {
            "eps": 0.5,
            "max_iter": 2,
            "conjugate_sinkhorn_max_iter": 20,
            "projected_sinkhorn_max_iter": 20,
        },
        count=1,
        weak=True,
    ),
    "Patch": Attack(
        "AdversarialPatch", {**PATCH, "patch_shape": (1, 4, 4)}, aims=True, generate=patched
    ),
    "Patch torch": Attack(
        "AdversarialPatchPyTorch", {**PATCH, "patch_shape": (1, 4, 4)}, aims=True, generate=patched
    ),
    "Square": Attack("SquareAttack", {"eps": EPS, "max_iter": 20, "p_init": 0.5}, np.inf),
    "HopSkipJump": Attack("HopSkipJump", {"max_iter": 2, "max_eval": 50, "init_eval": 5}),
    "Boundary": Attack(
        "BoundaryAttack", {"targeted": False, "max_iter": 3, "sample_size": 3, "num_trial": 3}
    ),
    "GeoDA": Attack("GeoDA", {"max_iter": 500, "sub_dim": 3}, count=1),
    "SignOPT": Attack(
        "SignOPTAttack",
        {"targeted": False, "max_iter": 1, "query_limit": 200, "num_trial": 20, "k": 3},
        count=1,
    ),
    "ZOO": Attack(
        "ZooAttack",
        {
            "max_iter": 5,
            "binary_search_steps": 1,
            "initial_const": 10.0,
            "learning_rate": 0.3,
            "nb_parallel": 32,
            "use_resize": False,
            "use_importance": False,
            "variable_h": 0.1,
        },
        count=1,
        small=True,
    ),
    "SimBA": Attack("SimBA", {"attack": "px", "max_iter": 20}, probabilities=True, generate=single),
    "Pixel": Attack("PixelAttack", {"th": 3, "es": 1, "max_iter": 1}, weak=True),
    "Threshold": Attack(
        "ThresholdAttack",
        {"th": int(255 * EPS), "es": 1, "max_iter": 0},
        np.inf,
        small=True,
        weak=True,
    ),
    "Spatial transformation": Attack(
        "SpatialTransformation",
        {
            "max_translation": 10.0,
            "num_translations": 2,
            "max_rotation": 20.0,
            "num_rotations": 2,
        },
    ),
}

NOT_RUN: dict[str, str] = {
    "AdversarialPatchNumpy": "ART 1.20's constructor fails under NumPy 2",
    "AdversarialPatchTensorFlowV2": "TensorFlow",
    "FeatureAdversariesTensorFlowV2": "TensorFlow",
    "ProjectedGradientDescentTensorFlowV2": "TensorFlow",
    "MalwareGDTensorFlow": "TensorFlow",
    "OverTheAirFlickeringPyTorch": "video",
    "OverloadPyTorch": "object detection",
    "SNAL": "object detection",
    "LaserAttack": "channels-last networks",
    "GRAPHITEBlackbox": "OpenCV and views of an object in space",
    "GRAPHITEWhiteboxPyTorch": "OpenCV and views of an object in space",
    "CompositeAdversarialAttackPyTorch": "kornia and colours",
}
"""What ART lets a PyTorch classifier be attacked with but does not run here, and why."""


def accepted_attacks() -> set[str]:
    """Names of ART's evasion attacks whose requirements a ``PyTorchClassifier`` meets."""

    def meets(requirement: Any) -> bool:
        either = requirement if isinstance(requirement, tuple) else (requirement,)
        return any(issubclass(PyTorchClassifier, part) for part in either)

    return {
        name
        for name, value in vars(evasion).items()
        if inspect.isclass(value)
        and issubclass(value, EvasionAttack)
        and all(map(meets, value._estimator_requirements))
    }
