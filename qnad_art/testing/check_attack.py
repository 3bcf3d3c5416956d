"""Conformance of attacks, on digits and a small undefended network."""

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
"""ε by norm, under which a working attack breaks the network."""
ORDERS = {"inf": np.inf, "2": 2, "1": 1, "0": 0}
ROUNDING = 1e-5


@dataclass(frozen=True)
class _Case:
    """An attack's entry, the settings it is tried with, and how much it must achieve."""

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
        """ε, for an attack that takes one."""
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
        """Adversarial examples of the first images, their form checked."""
        victim = digits_classifier() if classifier is None else classifier
        x, y = self.x[:images].copy(), self.y[:images].copy()
        with seeded(seed), in_own_precision(victim):
            found: Images = self.attack(victim, shrunk=shrunk).generate(x, y)
        shape = np.shape(found)
        expect(
            isinstance(found, np.ndarray) and shape == x.shape,
            found=f"{type(found).__name__} of shape {shape}",
            expected=f"an array of shape {x.shape}, one example an image",
        )
        expect(np.isfinite(found).all(), found="NaN or infinite pixels", expected="finite numbers")
        return found

    @cached_property
    def found(self) -> Images:
        """Adversarial examples of all images; several checks look at them."""
        return self.examples()


def is_an_attack_entry(case: _Case) -> None:
    """An AttackEntry that makes an ``art.attacks.EvasionAttack`` of its settings."""
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
    """As many and as large as the images, in the classifier's range; one image alone too."""
    for found in (case.found, case.examples(images=1)):
        low, high = float(found.min()), float(found.max())
        expect(
            low >= -ROUNDING and high <= 1 + ROUNDING,
            found=f"pixels from {low:g} to {high:g}",
            expected="the classifier's clip_values, 0 to 1",
        )


def stays_within_its_budget(case: _Case) -> None:
    """The norm of every change is at most ε, for two ε; only for attacks with a budget."""
    if case.budget is None:
        return
    expect(case.norm, found="norm None of an attack with a budget", expected="the norm ε bounds")
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
    """Images and labels, and the network: weights, mode and predictions."""
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
    """Under the global seeds, from which ART's attacks draw."""
    difference = float(np.abs(case.examples() - case.found).max())
    expect(
        difference <= ROUNDING,
        found=f"examples that differ by up to {difference:.3g} between two runs with one seed",
        expected="the same: draw from NumPy's, Python's or torch's global generator, or seed",
    )


def takes_gradients_only_if_it_says_so(case: _Case) -> None:
    """``kind="query"``: no pass with gradients; ``kind="gradient"``: some."""
    victim = digits_classifier()
    with counted(victim) as passes:
        case.examples(classifier=victim, images=4)
    wanted = case.entry.kind == "gradient"
    expect(
        passes.queries + passes.gradients > 0,
        found="no pass through the classifier",
        expected="an attack on the classifier that it is given",
    )
    expect(
        (passes.gradients > 0) == wanted,
        found=f"{passes.gradients} images passed with gradients, kind {case.entry.kind!r}",
        expected="kind='gradient' for an attack that differentiates, 'query' for one that does not",
    )


def lowers_the_accuracy(case: _Case) -> None:
    """By the share ``gain`` at least, of what the undefended network had."""
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
    """Check an attack on 8×8 digits and an undefended network that is right on 19 in 20.

    Args:
        attack: registered name, or an entry.
        images: so many are attacked.
        gain: share of the accuracy that the attack must take away.
        eps: budget in units of the input; by default one that suits the norm (L∞ 0.3, L2 2).
        **settings: of the attack; those that make it fast, say ``max_iter=5``.

    Raises:
        AssertionError: names the check that failed, what was found and what is expected.
        UnknownNameError, PluginError: the name stands for nothing that can be used.
    """
    SUITE.run(attack, images=images, gain=gain, eps=eps, **settings)
