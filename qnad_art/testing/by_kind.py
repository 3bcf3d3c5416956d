"""The conformance suites by kind of plugin."""

from __future__ import annotations

from typing import Any

from qnad_art.errors import UnknownNameError
from qnad_art.testing import check_attack as attack
from qnad_art.testing import check_command as command
from qnad_art.testing import check_crosstalk_model as crosstalk_model
from qnad_art.testing import check_dataset as dataset
from qnad_art.testing import check_defence as defence
from qnad_art.testing import check_device as device
from qnad_art.testing import check_engine as engine
from qnad_art.testing import check_model as model
from qnad_art.testing import check_sink as sink
from qnad_art.testing import check_strategy as strategy
from qnad_art.testing.checks import Check, Suite

_SUITES: tuple[Suite[Any], ...] = (
    device.SUITE,
    crosstalk_model.SUITE,
    strategy.SUITE,
    engine.SUITE,
    attack.SUITE,
    defence.SUITE,
    dataset.SUITE,
    model.SUITE,
    sink.SUITE,
    command.SUITE,
)


def checks_for(kind: str) -> list[tuple[str, Check[Any]]]:
    """(name, check) of every check of a kind of plugin; ``check(subject, **options)`` runs it.

    Options are those of the kind's ``check_…`` function. Raises UnknownNameError for a kind that
    is not in :data:`qnad_art.plugins.discovery.KINDS`.
    """
    suites = {suite.kind: suite for suite in _SUITES}
    if kind not in suites:
        raise UnknownNameError("kind of plugin", kind, suites)
    return [(check.name, check) for check in suites[kind].checks]
