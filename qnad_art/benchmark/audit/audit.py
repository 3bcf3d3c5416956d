"""The audit: what must hold before a figure of robustness is believed.

The gates are those of Carlini et al. 2019 ("On Evaluating Adversarial Robustness") and Athalye et
al. 2018 ("Obfuscated Gradients Give a False Sense of Security"), with the attack unit test of
Zimmermann et al. 2022. A gate that fails makes all figures of the defence unreliable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from art.estimators.classification import PyTorchClassifier

from qnad_art.benchmark.audit import gates
from qnad_art.benchmark.audit.comparisons import compare_cells
from qnad_art.benchmark.audit.probes import Probe
from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Gate, Result
from qnad_art.benchmark.threats.victim import Images, Labels

Where = tuple[str, str, str, str, int]
"""What is audited as a whole: :attr:`~qnad_art.benchmark.records.Cell.where`."""


def audit_cell(
    victim: PyTorchClassifier, x: Images, y: Labels, protocol: Protocol, seed: int
) -> tuple[Gate, ...]:
    """The gates that need attacks of their own.

    Args:
        victim: the defended classifier.
        x, y: images (N, …) and class indices (N,), some dozens.
        protocol: numbers of draws, samples and steps.
        seed: seed of the probe; the same seed gives the same verdicts.
    """
    probe = Probe(victim, x, y, protocol, seed)
    basic = [
        gates.predictions_vary(probe),
        gates.noise_in_gradients(probe),
        gates.gradients_exist(probe),
    ]
    if not basic[-1].figures:  # nothing can be differentiated, so nothing can be attacked
        reason = "there are no gradients to attack with"
        return (*basic, *(gates.not_run(name, reason) for name in _ATTACKS))
    return (*basic, *(judge(probe) for judge in _ATTACKS.values()))


def audit_results(results: Sequence[Result]) -> dict[Where, tuple[Gate, ...]]:
    """All gates of every defence: those of its audit cell, and those that compare its cells.

    The gates of an audit cell that the run does not have are marked as not run.
    """
    by_defence: dict[Where, list[Result]] = defaultdict(list)
    for result in results:
        by_defence[result.cell.where].append(result)
    return {
        where: (*_own_gates(found), *compare_cells(found)) for where, found in by_defence.items()
    }


def unreliable(found: Iterable[Gate]) -> list[str]:
    """Names of the gates that failed."""
    return [gate.name for gate in found if gate.verdict == "fail"]


def failed_gates(results: Sequence[Result]) -> dict[Where, list[str]]:
    """Names of the gates that each defence failed."""
    return {where: unreliable(found) for where, found in audit_results(results).items()}


_ATTACKS = {
    "unbounded ε": gates.unbounded,
    "falls in ε": gates.falls_in_budget,
    "falls in steps": gates.falls_in_steps,
    "falls in restarts": gates.falls_in_restarts,
    "falls in EOT samples": gates.falls_in_samples,
    "iterative against single-step": gates.iterative_against_single,
    "planted examples": gates.planted_found,
}


def _own_gates(results: Sequence[Result]) -> tuple[Gate, ...]:
    audited = [result for result in results if result.cell.kind == "audit"]
    if audited:
        return audited[-1].gates
    reason = "the run has no audit cell of this defence"
    return tuple(gates.not_run(name, reason) for name in gates.DEMANDS)
