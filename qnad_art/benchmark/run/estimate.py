"""How long work will take: counts of passes through the network, times a measured pass.

A guess for the progress bar and a first idea. It knows nothing of early stops nor of saturated
activations, and takes a quantum layer as so many times slower than a plain one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.defences import build_steps
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
"""Time of a pass through quantum layers over one through plain ones, with shot noise."""
EXACT_FACTOR = 1.2
"""The same for the exact expectation."""
_CELL_SECONDS = 0.5
_TIMED_IMAGES = 64
_EOT_STAGES = 3


@dataclass(frozen=True)
class Estimate:
    """Expected seconds on one core, by key of the work, and what they rest on."""

    seconds: Mapping[str, float]
    basis: str


@dataclass(frozen=True)
class _Pass:
    """Seconds that an image takes, without and with gradients."""

    forward: float
    gradient: float


def estimate(workload: Workload) -> Estimate:
    """Expected seconds of all work; takes about a second a network."""
    training, test = load_images(workload.source.data, workload.source.data_dir)
    networks = [p for p in workload.preparations.values() if isinstance(p, Network)]
    fitted_on = workload.source.data.fit_images or len(training)
    estimators = {p.key: _Estimator.of(p, training, test, fitted_on) for p in networks}
    works = (*workload.preparations.values(), *workload.tasks)
    seconds = {work.key: estimators[_network_of(work)].seconds(work) for work in works}
    basis = "counts of passes, times a pass measured just now"
    return Estimate(seconds, f"{basis}; a guess, within a factor of three")


def _network_of(work: AnyUnit) -> str:
    if isinstance(work, Network):
        return work.key
    return work.network if isinstance(work, Transfer) else work.victim.network


@dataclass(frozen=True)
class _Estimator:
    classifier: PyTorchClassifier
    one: _Pass
    training: int
    fitted_on: int
    test: int

    @classmethod
    def of(cls, work: Network, training: Dataset, test: Dataset, fitted_on: int) -> _Estimator:
        network = (load_network if work.model.ready else untrained_network)(work.model, training)
        classifier = classifier_of(network.eval(), training)
        return cls(classifier, _timed(classifier, test), len(training), fitted_on, len(test))

    def seconds(self, work: AnyUnit) -> float:
        if isinstance(work, Network):
            if work.model.ready:
                return 1.0
            return work.model.training().epochs * self.training * self.one.gradient
        if isinstance(work, Transfer):
            return self._attack(work.attack.spec, work.attack.eps)
        slower = _slowness(work.victim)
        if isinstance(work, Fit):
            return slower * self._fit(work.victim.steps[-1].content)
        return _CELL_SECONDS + slower * self._cell(work)

    def _fit(self, content: Mapping[str, Any]) -> float:
        if epochs := content.get("epochs") or content.get("nb_epochs"):
            passes = int(epochs) * (
                (content.get("attack_steps") or content.get("max_iter") or 1) + 1
            )
        else:  # nothing is trained: weights are ranked, on attacked images or as they are
            passes = 1 if content.get("ranked_at") is None else 2
        own = float(passes) * self.fitted_on * self.one.gradient
        return own + sum(self._fit(part) for part in content.get("of", ()))

    def _cell(self, task: Task) -> float:
        protocol, noisy = task.protocol, _noisy(task.victim)
        scored = protocol.persistent_draws if task.cell.rung == "persistent" else protocol.draws
        score = (scored if noisy else 1) * self.test * self.one.forward
        if task.cell.kind == "audit":
            steps = 10 * protocol.audit_steps
            return score + steps * min(self.test, protocol.audit_images) * self.one.gradient
        if task.attack is None or task.cell.rung is None or task.starts_from_transfer:
            return score
        repeats = _repeats(task.cell.rung, protocol) if noisy else task.cell.rung != "persistent"
        return score + repeats * self._attack(task.attack.spec, task.attack.eps)

    def _attack(self, spec: AttackSpec, eps: float | None) -> float:
        attack = spec.make(self.classifier, eps, batch_size=_TIMED_IMAGES)
        one = self.one.gradient if spec.kind == "gradient" else self.one.forward
        return self.test * one * _steps(attack)


def _slowness(victim: Victim) -> float:
    """How many times slower than the plain network a defended one is."""
    if not any(build_steps(step.content)[0].quantum for step in victim.steps):
        return 1.0
    return NOISY_FACTOR if _noisy(victim) else EXACT_FACTOR


def _noisy(victim: Victim) -> bool:
    return any(build_steps(step.content)[0].noisy for step in victim.steps)


def _repeats(rung: Rung, protocol: Protocol) -> float:
    """How many times an attack runs on a rung of a noisy defence."""
    by_rung: dict[Rung, float] = {
        "adaptive": sum(protocol.eot_samples[:_EOT_STAGES]),
        "seed-known": protocol.seed_known_draws,
        "black-box": sum(protocol.query_averages),
        "persistent": 0,
    }
    return by_rung.get(rung, 1)


def _steps(attack: Any) -> float:
    """Passes that an ART attack makes for an image, as far as its settings say."""
    parts = getattr(attack, "attacks", None)
    if isinstance(parts, list | tuple) and parts:
        return sum(_steps(part) for part in parts)
    attack = getattr(attack, "attack", attack)
    steps = 1.0
    for name in ("max_iter", "num_random_init", "nb_random_init", "nb_restarts"):
        count = getattr(attack, name, 1)
        steps *= max(1, count) if isinstance(count, int) else 1
    return steps


def _timed(classifier: PyTorchClassifier, test: Dataset) -> _Pass:
    """Time of a pass on one free core."""
    x = test.x[:_TIMED_IMAGES]
    y = np.eye(len(test.classes), dtype=np.float32)[test.y[:_TIMED_IMAGES]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        forward = _best(lambda: classifier.predict(x)) / len(x)
        gradient = _best(lambda: classifier.loss_gradient(x, y)) / len(x)
    finally:
        torch.set_num_threads(threads)
    return _Pass(forward, gradient)


def _best(call: Callable[[], object], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        # Of this process: what else runs just now says nothing about the hours to come.
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return min(taken)
