"""Conformance suite for commands of ``qnad``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from qnad_art.plugins.commands import build_command
from qnad_art.plugins.contracts import contract_fault
from qnad_art.testing.checks import Suite, expect, registered


@dataclass(frozen=True)
class _Case:
    """A function or a typer.Typer, and its name."""

    name: str
    made_of: Any


def typer_takes_it(case: _Case) -> None:
    """It is a function or a typer.Typer whose parameters Typer can read from a command line."""
    fault = contract_fault("command", case.name, case.made_of)
    expect(fault is None, found=f"what {fault}", expected="a function or a typer.Typer")


def help_says_what_it_does(case: _Case) -> None:
    """The command and each of its subcommands have a text, which ``--help`` shows."""
    whole = build_command(case.name, case.made_of)
    for typed, command in _with_subcommands(case.name, whole):
        expect(command.help, found=f"no help of {typed!r}", expected="a docstring or help=")
        printed = io.StringIO()
        with redirect_stdout(printed):
            command.main(["--help"], prog_name=typed, standalone_mode=False)
        first = command.help.split()[0]
        expect(first in printed.getvalue(), found=printed.getvalue(), expected=command.help)


def _with_subcommands(typed: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, each with the words to type for it."""
    yield typed, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _with_subcommands(f"{typed} {name}", below)


SUITE: Suite[_Case] = Suite("command")


@SUITE.run_on
def check_command(subject: Any) -> _Case:
    """Check a command of ``qnad``.

    Args:
        subject: registered name, function or :class:`typer.Typer`.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    name = subject if isinstance(subject, str) else getattr(subject, "__name__", "command")
    return _Case(name, registered("command", subject))
