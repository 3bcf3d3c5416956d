"""The attacks of the audit: PGD and FGSM on a few images, with all means of an attacker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.threats.ladder import adversarial_examples
from qnad_art.benchmark.threats.scoring import Score, score
from qnad_art.benchmark.threats.victim import Images, Labels, derived, is_stochastic

BUDGETS = (1 / 64, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""L∞ budgets as shares of the range of the inputs; the last one allows every image."""


@dataclass(frozen=True)
class Iterative:
    """PGD (Madry et al. 2018) with steps of 2.5 ε / ``steps`` from random starts.

    One step from the image itself is FGSM (Goodfellow et al. 2015).
    """

    steps: int
    restarts: int = 1
    name: str = "PGD"
    kind: Literal["gradient"] = "gradient"
    norm: str = "inf"

    @property
    def single_step(self) -> bool:
        """Whether this is FGSM."""
        return self.steps == 1

    def make(
        self, classifier: PyTorchClassifier, eps: float | None, *, batch_size: int
    ) -> EvasionAttack:
        """ART's attack."""
        from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

        assert eps is not None
        if self.single_step:
            return FastGradientMethod(classifier, eps=eps, batch_size=batch_size)
        return ProjectedGradientDescent(
            classifier,
            eps=eps,
            eps_step=2.5 * eps / self.steps,
            max_iter=self.steps,
            num_random_init=self.restarts,
            batch_size=batch_size,
            verbose=False,
        )


@dataclass(frozen=True)
class Probe:
    """A classifier and the images that it is audited on."""

    victim: PyTorchClassifier
    x: Images
    y: Labels
    protocol: Protocol
    seed: int

    @cached_property
    def stochastic(self) -> bool:
        """Whether predictions have noise."""
        return is_stochastic(self.victim, self.x)

    @cached_property
    def budgets(self) -> tuple[float, ...]:
        """:data:`BUDGETS` in units of the inputs."""
        bounds = self.victim.clip_values
        low, high = (self.x.min(), self.x.max()) if bounds is None else bounds
        width = float(np.max(np.asarray(high) - np.asarray(low)))
        return tuple(share * width for share in BUDGETS)

    @cached_property
    def clean(self) -> Score:
        """Score of the unchanged images."""
        return self.score(self.x)

    @cached_property
    def by_budget(self) -> tuple[Score, ...]:
        """Score under the audit's attack at each of the budgets."""
        return tuple(self.under(eps) for eps in self.budgets)

    @cached_property
    def middle(self) -> int:
        """Number of the bounded budget with an accuracy nearest to half of the clean one."""
        left = [abs(s.accuracy - self.clean.accuracy / 2) for s in self.by_budget[:-1]]
        return int(np.argmin(left))

    def under(
        self, eps: float, *, steps: int | None = None, restarts: int = 1, samples: int = 1
    ) -> Score:
        """Score on fresh draws under an attack that averages gradients over ``samples`` draws.

        Gradients through saturated activations are also tried, as on the adaptive rung.
        """
        steps = steps or self.protocol.audit_steps
        return self.score(self.examples(self.victim, Iterative(steps, restarts), eps, samples))

    def examples(
        self, victim: PyTorchClassifier, attack: Iterative, eps: float, samples: int
    ) -> Images:
        """Adversarial examples (N, …) of the audited images."""
        return adversarial_examples(
            victim,
            victim,
            attack,
            self.x,
            self.y,
            rung="adaptive",
            eps=eps,
            protocol=self.protocol.model_copy(update={"eot_samples": (samples,)}),
            seed=self.seed,
        ).x

    def score(self, x: Images) -> Score:
        """Score of images in place of the audited ones."""
        return score(
            self.victim,
            x,
            self.y,
            draws=self.protocol.draws,
            seed=derived(self.seed, "audit score"),
            batch_size=self.protocol.batch_size,
        )
