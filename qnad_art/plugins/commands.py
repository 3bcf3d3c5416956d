"""Commands that plugins add to ``qnad``: a function or a :class:`typer.Typer` becomes a command."""

from __future__ import annotations

from typing import Any


def build_command(name: str, made_of: Any) -> Any:
    """Build the command ``qnad NAME``, of the type that the installed Typer gives commands.

    ``made_of`` is a function whose parameters are arguments and options, or a
    :class:`typer.Typer` with subcommands. Typer raises various exceptions for other objects and for
    parameters that it cannot read from a command line.
    """
    from typer import Typer
    from typer.main import get_group

    group = Typer(add_completion=False)
    if isinstance(made_of, Typer):
        group.add_typer(made_of, name=name)
    else:
        group.command(name)(made_of)
    return get_group(group).commands[name]
