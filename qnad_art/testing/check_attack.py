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
from qnad_art.testing.checks import (
    Suite,
    expect,
    expect_numbers,
    expect_type,
    expect_unchanged,
    registered,
)
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
        expect_numbers(found, x.shape)
        return found

    @cached_property
    def found(self) -> Images:
        """Adversarial examples of all images, which several checks use."""
        return self.examples()


def is_an_attack_entry(case: _Case) -> None:
    """The attack is an AttackEntry that builds an ``art.attacks.EvasionAttack`` from settings."""
    expect_type(case.entry, AttackEntry)
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
    expect_type(case.attack(digits_classifier()), EvasionAttack)


def examples_are_images(case: _Case) -> None:
    """Examples have the number, shape and range of the images; a single image works as well."""
    for found in (case.found, case.examples(images=1)):
        expect_numbers(found, found.shape, low=-ROUNDING, high=1 + ROUNDING)


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
    x, y = case.x.copy(), case.y.copy()

    def state() -> dict[str, object]:
        arrays = {"x": x.copy(), "y": y.copy(), "predictions": victim.predict(case.x)}
        return {**{n: value.clone() for n, value in victim.model.state_dict().items()}, **arrays}

    before = state()
    with seeded(0), in_own_precision(victim):
        case.attack(victim).generate(x, y)
    wanted = "images, labels and classifier as before"
    expect_unchanged(before, state(), by="the attack", expected=wanted)


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


SUITE: Suite[_Case] = Suite("attack")


@SUITE.run_on
def check_attack(
    attack: str | AttackEntry,
    *,
    images: int = 16,
    gain: float = 0.25,
    eps: float | None = None,
    **settings: Any,
) -> _Case:
    """Check an attack on 8×8 digits and an undefended network with an accuracy of 95 %.

    Args:
        attack: registered name or entry.
        images: number of images to attack.
        gain: fraction of the accuracy that the attack must remove.
        eps: budget in units of the input; the default suits the norm (L∞ 0.3, L2 2).
        **settings: settings of the attack, for example ``max_iter=5`` to make it fast.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    entry = registered("attack", attack)
    name = attack if isinstance(attack, str) else str(getattr(entry, "path", entry))
    return _Case(name, entry, settings, images, gain, eps)
