"""The benchmark: suites of defences under attack, judged by the field's rules for randomised ones.

>>> from qnad_art.benchmark import Run, load_suite, run_suite
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnad_art.lazy import lazy_names

if TYPE_CHECKING:
    from qnad_art.benchmark.attacks import AttackSpec as AttackSpec
    from qnad_art.benchmark.attacks import attack_names as attack_names
    from qnad_art.benchmark.defences import build_steps as build_steps
    from qnad_art.benchmark.defences import defence_names as defence_names
    from qnad_art.benchmark.defences.base import Defence as Defence
    from qnad_art.benchmark.defences.base import Work as Work
    from qnad_art.benchmark.protocol import Protocol as Protocol
    from qnad_art.benchmark.records import Cell as Cell
    from qnad_art.benchmark.records import Result as Result
    from qnad_art.benchmark.run.folder import Run as Run
    from qnad_art.benchmark.run.runner import run_suite as run_suite
    from qnad_art.benchmark.suites.schema import suite_schema as suite_schema
    from qnad_art.benchmark.suites.suite import Suite as Suite
    from qnad_art.benchmark.suites.suite import load_suite as load_suite

_LAZY = {
    "AttackSpec": "qnad_art.benchmark.attacks",
    "Cell": "qnad_art.benchmark.records",
    "Defence": "qnad_art.benchmark.defences.base",
    "Protocol": "qnad_art.benchmark.protocol",
    "Result": "qnad_art.benchmark.records",
    "Run": "qnad_art.benchmark.run.folder",
    "Suite": "qnad_art.benchmark.suites.suite",
    "Work": "qnad_art.benchmark.defences.base",
    "attack_names": "qnad_art.benchmark.attacks",
    "build_steps": "qnad_art.benchmark.defences",
    "defence_names": "qnad_art.benchmark.defences",
    "load_suite": "qnad_art.benchmark.suites.suite",
    "run_suite": "qnad_art.benchmark.run.runner",
    "suite_schema": "qnad_art.benchmark.suites.schema",
}
__all__ = [*_LAZY]
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
