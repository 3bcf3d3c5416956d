"""Conformance of commands: Typer takes them, and they say what they do."""

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
    """What was registered, and under which name."""

    name: str
    made_of: Any

    def commands(self) -> Iterator[tuple[str, Any]]:
        """Each command with what one types for it: itself, and those below it."""
        return _with_subcommands(self.name, build_command(self.name, self.made_of))


def typer_takes_it(case: _Case) -> None:
    """A function or a typer.Typer whose parameters have a form on the command line."""
    fault = contract_fault("command", case.name, case.made_of)
    expect(fault is None, found=f"what {fault}", expected="a function or a typer.Typer")


def help_says_what_it_does(case: _Case) -> None:
    """It and each of its subcommands has a text, which ``--help`` shows."""
    for typed, command in case.commands():
        expect(command.help, found=f"no help of {typed!r}", expected="a docstring or help=")
        printed = io.StringIO()
        with redirect_stdout(printed):
            command.main(["--help"], prog_name=typed, standalone_mode=False)
        first = command.help.split()[0]
        expect(first in printed.getvalue(), found=printed.getvalue(), expected=command.help)


def _with_subcommands(typed: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield typed, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _with_subcommands(f"{typed} {name}", below)


def _case(subject: Any) -> _Case:
    name = subject if isinstance(subject, str) else getattr(subject, "__name__", "command")
    return _Case(name, registered("command", subject))


SUITE = Suite("command", _case, typer_takes_it, help_says_what_it_does)


def check_command(subject: Any) -> None:
    """Check a command of ``qnad``.

    Args:
        subject: its registered name, or the function or :class:`typer.Typer` itself.

    Raises:
        AssertionError: names the check that failed, what was found and what is expected.
        UnknownNameError, PluginError: the name stands for nothing that can be used.
    """
    SUITE.run(subject)
