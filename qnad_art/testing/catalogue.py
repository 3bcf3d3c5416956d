"""The suites by kind of plugin."""

from __future__ import annotations

from typing import Any

from qnad_art.errors import UnknownNameError
from qnad_art.testing import attack, dataset, defence, device, engine, model, sink, strategy
from qnad_art.testing.suite import Check, Suite

_SUITES: tuple[Suite[Any], ...] = (
    device.SUITE,
    strategy.SUITE,
    engine.SUITE,
    attack.SUITE,
    defence.SUITE,
    dataset.SUITE,
    model.SUITE,
    sink.SUITE,
)


def checks_for(kind: str) -> list[tuple[str, Check[Any]]]:
    """(name, check) of every check of a kind of plugin; ``check(subject, **options)`` runs it.

    Options are those of the kind's ``check_…`` function. Raises UnknownNameError for a kind that
    is none of :data:`qnad_art.plugins.KINDS`.
    """
    suites = {suite.kind: suite for suite in _SUITES}
    if kind not in suites:
        raise UnknownNameError("kind of plugin", kind, suites)
    return [(check.name, check) for check in suites[kind].checks]
