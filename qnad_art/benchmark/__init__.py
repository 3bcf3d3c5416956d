"""The benchmark: suites of defences under attack, judged by the field's rules for randomised ones.

>>> from qnad_art.benchmark import Run, load_suite, run_suite
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

# Imported when first used: torch and ART take seconds, and workers start with this package.
_PUBLIC = {
    "AttackSpec": "attacks",
    "Cell": "records",
    "Defence": "defences.base",
    "Protocol": "protocol",
    "Result": "records",
    "Run": "run.folder",
    "Suite": "suites.suite",
    "Work": "defences.base",
    "attack_names": "attacks",
    "build_steps": "defences",
    "defence_names": "defences",
    "load_suite": "suites.suite",
    "run_suite": "run.runner",
    "suite_schema": "suites.schema",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
