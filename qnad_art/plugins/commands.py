"""Commands that plugins add to ``qnad``: a function or a :class:`typer.Typer` becomes a command."""

from __future__ import annotations

from typing import Any


def build_command(name: str, made_of: Any) -> Any:
    """The command ``qnad NAME``, of the type that the installed Typer gives commands.

    Args:
        name: name of the command.
        made_of: a function whose parameters are its arguments and options, or a
            :class:`typer.Typer` with subcommands.

    Raises:
        Exception: whatever Typer raises for what it cannot take, such as a parameter of a type
            that has no form on the command line.
    """
    from typer import Typer
    from typer.main import get_group

    group = Typer(add_completion=False)
    if isinstance(made_of, Typer):
        group.add_typer(made_of, name=name)
    else:
        group.command(name)(made_of)
    return get_group(group).commands[name]
