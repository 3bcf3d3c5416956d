"""Adversarial examples for every rung of the threat ladder.

An attacker may try several candidates (more draws in an average, gradients through saturation).
For each image it keeps the candidate that does best on draws of its own, the selection draws.
Scoring uses other draws, so that lucky candidates gain nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from typing import Protocol as Interface

import numpy as np
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import CurvePoint, Rung
from qnad_art.benchmark.threats.examples import Examples, ExampleStore, Origin
from qnad_art.benchmark.threats.known_draw import known_draw_examples
from qnad_art.benchmark.threats.scoring import Score, score
from qnad_art.benchmark.threats.victim import (
    Images,
    Labels,
    averaged,
    counted,
    derived,
    in_own_precision,
    is_stochastic,
    reseed,
    saturation,
    seeded,
    surrogate,
    unsaturated,
)
from qnad_art.errors import InvalidInputError, QnadError

if TYPE_CHECKING:
    from art.attacks import EvasionAttack

Gradients = Literal["true", "unsaturated"]

__all__ = ["Attack", "ExampleStore", "Examples", "Origin", "adversarial_examples", "rungs_of"]

SATURATED = 1e-3
"""Share of a layer's activations beyond its scale above which the attacker also uses BPDA."""

_RUNGS: dict[str, dict[Rung, Origin]] = {
    "gradient": {
        "transfer": "transfer",
        "white-box": "white-box",
        "adaptive": "adaptive",
        "surrogate": "surrogate",
        "seed-known": "seed-known",
        "persistent": "adaptive",
    },
    "query": {"transfer": "transfer", "black-box": "black-box", "persistent": "black-box"},
}


class Attack(Interface):
    """What the rungs need of an attack, such as :class:`~qnad_art.benchmark.attacks.AttackSpec`."""

    @property
    def name(self) -> str:
        """The attack's name in the suite."""

    @property
    def kind(self) -> Literal["gradient", "query"]:
        """Whether it follows gradients or only asks for predictions."""

    @property
    def norm(self) -> str | None:
        """The norm that its budget bounds, ``"inf"`` or an order."""

    @property
    def single_step(self) -> bool:
        """Whether it takes only one step."""

    def make(
        self, classifier: PyTorchClassifier, eps: float | None, *, batch_size: int
    ) -> EvasionAttack:
        """ART's attack on a classifier."""


def rungs_of(attack: Attack) -> tuple[Rung, ...]:
    """Rungs that an attack can be on: query attacks have no gradients to follow."""
    return tuple(_RUNGS[attack.kind])


def adversarial_examples(
    victim: PyTorchClassifier,
    plain: PyTorchClassifier,
    attack: Attack,
    x: Images,
    y: Labels,
    *,
    rung: Rung,
    eps: float | None,
    protocol: Protocol,
    seed: int,
    store: ExampleStore | None = None,
) -> Examples:
    """Adversarial examples of one rung.

    Args:
        victim, plain: the defended classifier, and the network that it defends.
        attack: attack to carry out.
        x, y: images (N, …) and class indices (N,).
        rung: rung of the threat ladder.
        eps: budget of the attack; ``None`` for attacks without one.
        protocol: numbers of draws and samples.
        seed: seed of the attack; the same seed gives the same examples, whatever ran before and
            whatever is in ``store``.
        store: examples are looked up here first, and new ones are saved here.

    Raises:
        InvalidInputError: an attack that cannot be on this rung.
        QnadError: the attack returned something other than images.
    """
    origins = _RUNGS[attack.kind]
    if rung not in origins:
        raise InvalidInputError(
            f"{attack.name} is a {attack.kind} attack and cannot be on the rung {rung!r}; valid: "
            f"{', '.join(origins)}."
        )
    return _Attacker(victim, plain, attack, x, y, eps, protocol, seed, store).examples(
        origins[rung]
    )


@dataclass(frozen=True)
class _Attacker:
    """An attack and everything that it may use."""

    victim: PyTorchClassifier
    plain: PyTorchClassifier
    attack: Attack
    x: Images
    y: Labels
    eps: float | None
    protocol: Protocol
    seed: int
    store: ExampleStore | None

    def examples(self, origin: Origin) -> Examples:
        if origin == "white-box" and self.victim is self.plain:
            origin = "transfer"  # the same attack on the same network
        found = self.store.load(origin) if self.store is not None else None
        if found is None:
            found = self._ways()[origin]()
            if self.store is not None:
                self.store.save(origin, found)
        return found

    def _ways(self) -> dict[Origin, Callable[[], Examples]]:
        return {
            "transfer": lambda: self._against(self.plain),
            "white-box": lambda: self._against(self.victim),
            "surrogate": lambda: self._against(surrogate(self.victim)),
            "adaptive": self._adaptive,
            "black-box": self._black_box,
            "seed-known": self._seed_known,
        }

    def _against(
        self, target: PyTorchClassifier, samples: int = 1, gradients: Gradients = "true"
    ) -> Examples:
        """The attack on ``target``, with every pass averaged over ``samples`` draws."""
        seed = derived(self.seed, "attack", samples)
        averages = averaged(target, samples)
        through = unsaturated(target) if gradients == "unsaturated" else nullcontext()
        with counted(target) as passes, through, seeded(seed):
            reseed(target, seed)
            made = self._generate(averages, self.x, self.y, self.protocol.batch_size)
        return Examples(made, gradients=passes.gradients, queries=passes.queries)

    def _generate(self, target: PyTorchClassifier, x: Images, y: Labels, batch_size: int) -> Images:
        with in_own_precision(target):
            attack = self.attack.make(target, self.eps, batch_size=batch_size)
            found = attack.generate(x.copy(), y)
        made = np.asarray(found, dtype=np.float32)
        if made.shape != x.shape or not np.isfinite(made).all():
            raise QnadError(
                f"{self.attack.name} returned an array of shape {made.shape}, finite: "
                f"{bool(np.isfinite(made).all())}; expected finite images {x.shape}. Leave it out, "
                "or change its settings."
            )
        return self._within_budget(made, x)

    def _within_budget(self, made: Images, x: Images) -> Images:
        """``made``, clipped to the budget around ``x`` and to valid images."""
        if self.eps is not None and self.attack.norm == "inf":
            made = np.clip(made, x - self.eps, x + self.eps)
        elif self.eps is not None and self.attack.norm == "2":
            change = made - x
            length = np.sqrt((change**2).sum(axis=tuple(range(1, x.ndim)), keepdims=True))
            made = x + change * np.minimum(1, self.eps / np.maximum(length, 1e-12))
        if self.victim.clip_values is not None:
            made = np.clip(made, *self.victim.clip_values)
        return np.asarray(made, dtype=np.float32)

    def _adaptive(self) -> Examples:
        """EOT with more and more draws until accuracy stops falling; best candidate per image."""
        stochastic = is_stochastic(self.victim, self.x)
        plain_eot = self.examples("white-box")
        through = saturation(self.victim, plain_eot.x, batch_size=self.protocol.batch_size)
        kinds: tuple[Gradients, ...] = ("true", "unsaturated") if through > SATURATED else ("true",)
        strongest = _Strongest()
        curve: list[CurvePoint] = []
        lowest = np.inf
        for samples in self.protocol.eot_samples if stochastic else (1,):
            reached = []
            for gradients in kinds:
                known = samples == 1 and gradients == "true"
                made = plain_eot if known else self._against(self.victim, samples, gradients)
                reached.append(strongest.add(made, self._try(made)))
                curve.append(CurvePoint(samples=samples, gradients=gradients, accuracy=reached[-1]))
            if min(reached) >= lowest:
                break
            lowest = min(reached)
        return strongest.examples(tuple(curve))

    def _black_box(self) -> Examples:
        """Queries with and without averaging; best candidate per image."""
        averages = self.protocol.query_averages if is_stochastic(self.victim, self.x) else (1,)
        strongest = _Strongest()
        for samples in averages:
            made = self._against(self.victim, samples)
            strongest.add(made, self._try(made))
        return strongest.examples()

    def _try(self, made: Examples) -> Score:
        return score(
            self.victim,
            made.x,
            self.y,
            draws=self.protocol.selection_draws,
            seed=derived(self.seed, "selection"),
            batch_size=self.protocol.batch_size,
        )

    def _seed_known(self) -> Examples:
        """Examples for single draws that the attacker knows."""
        draws = self.protocol.seed_known_draws if is_stochastic(self.victim, self.x) else 1

        def attack(x: Images, y: Labels, batch_size: int) -> Images:
            return self._generate(self.victim, x, y, batch_size)

        with counted(self.victim) as passes:
            found = [
                known_draw_examples(
                    self.victim,
                    attack,
                    self.x,
                    self.y,
                    seed=derived(self.seed, "known", draw),
                    batch_size=self.protocol.batch_size,
                )
                for draw in range(draws)
            ]
        examples, outputs = (np.stack(parts) for parts in zip(*found, strict=True))
        return Examples(examples, outputs, (), passes.gradients, passes.queries)


class _Strongest:
    """For each image, the candidate that is classified right least often and least confidently."""

    def __init__(self) -> None:
        self._x: Images | None = None
        self._rank = np.empty(0)
        self._candidates = self._gradients = self._queries = self._compared = 0

    def add(self, made: Examples, tried: Score) -> float:
        """Add a candidate with its score on the selection draws, and return its accuracy."""
        # The confidence is scaled down, so that it only decides between equal shares of draws.
        rank = tried.correct.mean(0) + tried.confidence.mean(0) / (2 * tried.draws)
        if self._x is None:
            self._x, self._rank = made.x.copy(), rank
        stronger = rank < self._rank
        self._x[stronger], self._rank[stronger] = made.x[stronger], rank[stronger]
        self._candidates += 1
        self._gradients += made.gradients
        self._queries += made.queries
        self._compared += tried.correct.size
        return tried.accuracy

    def examples(self, curve: tuple[CurvePoint, ...] = ()) -> Examples:
        """The strongest candidates, with the cost of all candidates and of their comparison."""
        assert self._x is not None
        queries = self._queries + (self._compared if self._candidates > 1 else 0)
        return Examples(self._x, curve=curve, gradients=self._gradients, queries=queries)
