"""Conformance suite for attacks, run on digits and a small undefended network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.attacks import AttackEntry, make_attack
from qnad_art.benchmark.threats.victim import Images, counted, in_own_precision, seeded
from qnad_art.testing.checks import Suite, expect, registered
from qnad_art.testing.specimens import accuracy, digits, digits_classifier

BUDGETS = {"inf": 0.3, "2": 2.0, "1": 8.0, "0": 16.0}
"""For each norm, an ε at which a working attack breaks the network."""
ORDERS = {"inf": np.inf, "2": 2, "1": 1, "0": 0}
ROUNDING = 1e-5


@dataclass(frozen=True)
class _Case:
    """An attack's entry, its settings, and the effect that it must have."""

    name: str
    entry: AttackEntry
    settings: Mapping[str, Any]
    images: int
    gain: float
    eps: float | None

    @cached_property
    def x(self) -> Images:
        return digits().x[: self.images]

    @cached_property
    def y(self) -> npt.NDArray[np.int64]:
        return digits().y[: self.images]

    @property
    def norm(self) -> str | None:
        chosen = self.settings.get("norm", self.entry.norm)
        return None if chosen is None else str(chosen).removesuffix(".0")

    @property
    def budget(self) -> float | None:
        """ε, if the attack has a budget."""
        if self.entry.budget is None:
            return None
        return BUDGETS.get(str(self.norm), 0.3) if self.eps is None else self.eps

    def attack(self, classifier: PyTorchClassifier, *, shrunk: float = 1.0) -> EvasionAttack:
        eps = None if self.budget is None else shrunk * self.budget
        return make_attack(self.name, self.entry, self.settings, classifier, eps, 250)

    def examples(
        self,
        *,
        classifier: PyTorchClassifier | None = None,
        images: int | None = None,
        shrunk: float = 1.0,
        seed: int = 0,
    ) -> Images:
        """Adversarial examples of the first images, after checking their shape."""
        victim = digits_classifier() if classifier is None else classifier
        x, y = self.x[:images].copy(), self.y[:images].copy()
        with seeded(seed), in_own_precision(victim):
            found: Images = self.attack(victim, shrunk=shrunk).generate(x, y)
        shape = np.shape(found)
        expect(
            isinstance(found, np.ndarray) and shape == x.shape,
            found=f"{type(found).__name__} of shape {shape}",
            expected=f"an array of shape {x.shape}, one example per image",
        )
        expect(np.isfinite(found).all(), found="NaN or infinite pixels", expected="finite numbers")
        return found

    @cached_property
    def found(self) -> Images:
        """Adversarial examples of all images, which several checks use."""
        return self.examples()


def is_an_attack_entry(case: _Case) -> None:
    """The attack is an AttackEntry that builds an ``art.attacks.EvasionAttack`` from settings."""
    kind = type(case.entry).__name__
    expect(isinstance(case.entry, AttackEntry), found=f"a {kind}", expected="an AttackEntry")
    expect(
        case.entry.kind in ("gradient", "query"),
        found=f"kind {case.entry.kind!r}",
        expected="'gradient' or 'query'",
    )
    expect(
        case.norm in (*ORDERS, None),
        found=f"norm {case.norm!r}",
        expected=f"one of {', '.join(ORDERS)}, or None",
    )
    attack = case.attack(digits_classifier())
    found = type(attack).__name__
    expect(isinstance(attack, EvasionAttack), found=f"a {found}", expected="an ART EvasionAttack")


def examples_are_images(case: _Case) -> None:
    """Examples have the number, shape and range of the images; a single image works as well."""
    for found in (case.found, case.examples(images=1)):
        low, high = float(found.min()), float(found.max())
        expect(
            low >= -ROUNDING and high <= 1 + ROUNDING,
            found=f"pixels from {low:g} to {high:g}",
            expected="the classifier's clip_values, 0 to 1",
        )


def stays_within_its_budget(case: _Case) -> None:
    """The norm of every perturbation is at most ε, for two values of ε (if there is a budget)."""
    if case.budget is None:
        return
    expect(case.norm, found="norm None for an attack with a budget", expected="the norm ε bounds")
    for shrunk, found in ((1.0, case.found), (0.25, case.examples(shrunk=0.25))):
        change = (found.astype(np.float64) - case.x).reshape(len(found), -1)
        change[np.abs(change) < ROUNDING] = 0
        largest = float(np.linalg.norm(change, ord=ORDERS[str(case.norm)], axis=1).max())
        expect(
            largest <= shrunk * case.budget * (1 + 1e-4) + ROUNDING,
            found=f"a change of L{case.norm} norm {largest:.5g}",
            expected=f"at most ε = {shrunk * case.budget:g}",
        )


def leaves_inputs_and_classifier_as_they_were(case: _Case) -> None:
    """The attack leaves images, labels, and the network's weights, mode and output unchanged."""
    victim = digits_classifier()
    victim.model.eval()
    state = {name: value.clone() for name, value in victim.model.state_dict().items()}
    outputs = victim.predict(case.x)
    x, y = case.x.copy(), case.y.copy()
    with seeded(0), in_own_precision(victim):
        case.attack(victim).generate(x, y)
    now = victim.model.state_dict()
    changed = [name for name, value in state.items() if not value.equal(now[name])]
    changed += [] if np.array_equal(victim.predict(case.x), outputs) else ["predictions"]
    for name, here, before in (("x", x, case.x), ("y", y, case.y)):
        changed += [] if np.array_equal(here, before) else [name]
    expect(
        not changed,
        found=f"that the attack changed {', '.join(changed)}",
        expected="images, labels and classifier as before",
    )


def same_seed_same_examples(case: _Case) -> None:
    """With equal global seeds, from which ART's attacks draw, the examples are equal."""
    difference = float(np.abs(case.examples() - case.found).max())
    expect(
        difference <= ROUNDING,
        found=f"examples that differ by up to {difference:.3g} between two runs with one seed",
        expected="the same: draw from NumPy's, Python's or torch's global generator, or seed",
    )


def takes_gradients_only_if_it_says_so(case: _Case) -> None:
    """Gradients are used if and only if the entry says ``kind="gradient"``."""
    victim = digits_classifier()
    with counted(victim) as passes:
        case.examples(classifier=victim, images=4)
    wanted = case.entry.kind == "gradient"
    expect(
        passes.queries + passes.gradients > 0,
        found="no pass through the classifier",
        expected="an attack on the given classifier",
    )
    expect(
        (passes.gradients > 0) == wanted,
        found=f"{passes.gradients} images passed with gradients, kind {case.entry.kind!r}",
        expected="kind='gradient' for an attack that differentiates, 'query' for one that does not",
    )


def lowers_the_accuracy(case: _Case) -> None:
    """The accuracy falls by at least the fraction ``gain`` of the undefended accuracy."""
    victim = digits_classifier()
    before, after = (accuracy(victim, x, case.y) for x in (case.x, case.found))
    expect(
        after <= (1 - case.gain) * before,
        found=f"an accuracy of {after:.1%} on the examples, {before:.1%} on the images",
        expected=f"{(1 - case.gain) * before:.1%} or less"
        + ("" if case.budget is None else f" at ε = {case.budget:g}")
        + "; a weak attack needs other settings or a smaller gain",
    )


def _prepare(
    attack: str | AttackEntry,
    *,
    images: int = 16,
    gain: float = 0.25,
    eps: float | None = None,
    **settings: Any,
) -> _Case:
    entry = registered("attack", attack)
    name = attack if isinstance(attack, str) else str(getattr(entry, "path", entry))
    return _Case(name, entry, settings, images, gain, eps)


SUITE = Suite(
    "attack",
    _prepare,
    is_an_attack_entry,
    examples_are_images,
    stays_within_its_budget,
    leaves_inputs_and_classifier_as_they_were,
    same_seed_same_examples,
    takes_gradients_only_if_it_says_so,
    lowers_the_accuracy,
)


def check_attack(
    attack: str | AttackEntry,
    *,
    images: int = 16,
    gain: float = 0.25,
    eps: float | None = None,
    **settings: Any,
) -> None:
    """Check an attack on 8×8 digits and an undefended network with an accuracy of 95 %.

    Args:
        attack: registered name or entry.
        images: number of images to attack.
        gain: fraction of the accuracy that the attack must remove.
        eps: budget in units of the input; the default suits the norm (L∞ 0.3, L2 2).
        **settings: settings of the attack, for example ``max_iter=5`` to make it fast.

    Raises:
        AssertionError: a check failed; the message names it, what was found and what is expected.
        UnknownNameError, PluginError: the name does not exist or cannot be used.
    """
    SUITE.run(attack, images=images, gain=gain, eps=eps, **settings)
