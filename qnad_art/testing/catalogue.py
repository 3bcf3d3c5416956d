"""The suites by kind of plugin."""

from __future__ import annotations

from typing import Any

from qnad_art.errors import UnknownNameError
from qnad_art.testing import engine, strategy
from qnad_art.testing.suite import Check, Suite

SUITES: dict[str, Suite[Any]] = {module.SUITE.kind: module.SUITE for module in (engine, strategy)}


def checks_for(kind: str) -> list[tuple[str, Check[Any]]]:
    """(name, check) of every check of a kind of plugin; ``check(subject, **options)`` runs it.

    Options are those of the kind's ``check_…`` function. Raises UnknownNameError for a kind that
    is none of :data:`qnad_art.plugins.KINDS`.
    """
    if kind not in SUITES:
        raise UnknownNameError("kind of plugin", kind, SUITES)
    return [(check.name, check) for check in SUITES[kind].checks]
