"""How long work will take: counts of passes through the network, times a measured pass.

This is a guess for the progress bar and for a first idea. It ignores early stops and saturated
activations, and assumes that quantum layers are slower than plain ones by a fixed factor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.defences import build_steps
from qnad_art.benchmark.defences.base import Defence
from qnad_art.benchmark.defences.training import one_hot
from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Rung
from qnad_art.benchmark.run.planner import Workload
from qnad_art.benchmark.run.tasks import AnyUnit, Fit, Network, Task, Transfer, Victim
from qnad_art.benchmark.suites.sources import (
    classifier_of,
    load_images,
    load_network,
    untrained_network,
)
from qnad_art.datasets.dataset import Dataset

NOISY_FACTOR = 2.5
"""Time of a pass through quantum layers with shot noise, relative to plain layers."""
EXACT_FACTOR = 1.2
"""The same without shot noise, for the exact expectation."""
_CELL_SECONDS = 0.5
_TIMED_IMAGES = 64
_EOT_STAGES = 3


@dataclass(frozen=True)
class Estimate:
    """Expected seconds on one core, by key of the work, and how they were found."""

    seconds: Mapping[str, float]
    basis: str


def estimate(workload: Workload) -> Estimate:
    """Expected seconds of all work; the estimate takes about a second per network."""
    training, test = load_images(workload.source.data, workload.source.data_dir)
    fitted_on = workload.source.data.fit_images or len(training)
    works = (*workload.preparations.values(), *workload.tasks)
    networks = [work for work in works if isinstance(work, Network)]
    estimators = {n.key: _Estimator.of(n, training, test, fitted_on) for n in networks}
    seconds = {work.key: estimators[_network_of(work)].seconds(work) for work in works}
    basis = "counts of passes, times a pass measured just now; a guess, within a factor of three"
    return Estimate(seconds, basis)


def _network_of(work: AnyUnit) -> str:
    if isinstance(work, Network):
        return work.key
    return work.network if isinstance(work, Transfer) else work.victim.network


@dataclass(frozen=True)
class _Estimator:
    """Estimates all work on one network.

    Args:
        forward, gradient: seconds per image of a pass without and with gradients.
        training, fitted_on, test: numbers of images.
    """

    classifier: PyTorchClassifier
    forward: float
    gradient: float
    training: int
    fitted_on: int
    test: int

    @classmethod
    def of(cls, work: Network, training: Dataset, test: Dataset, fitted_on: int) -> _Estimator:
        network = (load_network if work.model.ready else untrained_network)(work.model, training)
        classifier = classifier_of(network.eval(), training)
        few = replace(test, x=test.x[:_TIMED_IMAGES], y=test.y[:_TIMED_IMAGES])
        forward = _timed(lambda: classifier.predict(few.x)) / len(few)
        gradient = _timed(lambda: classifier.loss_gradient(few.x, one_hot(few))) / len(few)
        return cls(classifier, forward, gradient, len(training), fitted_on, len(test))

    def seconds(self, work: AnyUnit) -> float:
        if isinstance(work, Network):
            if work.model.ready:
                return 1.0
            return work.model.training().epochs * self.training * self.gradient
        if isinstance(work, Transfer):
            return self._attack(work.attack.spec, work.attack.eps)
        steps = _steps_of(work.victim)
        noisy, slower = any(step.noisy for step in steps), 1.0
        if any(step.quantum for step in steps):
            slower = NOISY_FACTOR if noisy else EXACT_FACTOR
        if isinstance(work, Fit):
            return slower * self._fit(work.victim.steps[-1].content)
        return _CELL_SECONDS + slower * self._cell(work, noisy)

    def _fit(self, content: Mapping[str, Any]) -> float:
        if epochs := content.get("epochs") or content.get("nb_epochs"):
            steps = content.get("attack_steps") or content.get("max_iter") or 1
            passes = int(epochs) * (steps + 1)
        else:  # nothing is trained: weights are ranked, on attacked images or on clean ones
            passes = 1 if content.get("ranked_at") is None else 2
        own = float(passes) * self.fitted_on * self.gradient
        return own + sum(self._fit(part) for part in content.get("of", ()))

    def _cell(self, task: Task, noisy: bool) -> float:
        protocol = task.protocol
        scored = protocol.persistent_draws if task.cell.rung == "persistent" else protocol.draws
        score = (scored if noisy else 1) * self.test * self.forward
        if task.cell.kind == "audit":
            steps = 10 * protocol.audit_steps
            return score + steps * min(self.test, protocol.audit_images) * self.gradient
        if task.attack is None or task.cell.rung is None or task.starts_from_transfer:
            return score
        repeats = _repeats(task.cell.rung, protocol) if noisy else task.cell.rung != "persistent"
        return score + repeats * self._attack(task.attack.spec, task.attack.eps)

    def _attack(self, spec: AttackSpec, eps: float | None) -> float:
        attack = spec.make(self.classifier, eps, batch_size=_TIMED_IMAGES)
        one = self.gradient if spec.kind == "gradient" else self.forward
        return self.test * one * _steps(attack)


def _steps_of(victim: Victim) -> list[Defence]:
    return [step for planned in victim.steps for step in build_steps(planned.content)]


def _repeats(rung: Rung, protocol: Protocol) -> float:
    """How many times an attack on a noisy defence runs on a rung."""
    by_rung: dict[Rung, float] = {
        "adaptive": sum(protocol.eot_samples[:_EOT_STAGES]),
        "seed-known": protocol.seed_known_draws,
        "black-box": sum(protocol.query_averages),
        "persistent": 0,
    }
    return by_rung.get(rung, 1)


def _steps(attack: Any) -> float:
    """Passes per image that an ART attack makes, as far as its settings tell."""
    parts = getattr(attack, "attacks", None)
    if isinstance(parts, list | tuple) and parts:
        return sum(_steps(part) for part in parts)
    attack = getattr(attack, "attack", attack)
    steps = 1.0
    for name in ("max_iter", "num_random_init", "nb_random_init", "nb_restarts"):
        count = getattr(attack, name, 1)
        steps *= max(1, count) if isinstance(count, int) else 1
    return steps


def _timed(call: Callable[[], object]) -> float:
    """Seconds that ``call`` takes on one free core, the best of three."""
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            # Time of this process only: the present load says nothing about the hours to come.
            started = time.process_time()
            call()
            taken.append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return min(taken)
