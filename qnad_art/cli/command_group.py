"""The commands of ``qnad``: its own, and those of plugins, which are imported when called."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from qnad_art.plugins.commands import build_command
from qnad_art.plugins.discovery import VARIABLE, Plugin, find_plugins, load_plugin, without_plugins

EVALUATIONS = "qnad-evaluations"
OF_EVALUATIONS = ("bench", "paper", "results")
"""Its commands, which people look for here."""
UNAVAILABLE = 2
"""Exit status, as that of a command that does not exist."""


class CommandGroup(TyperGroup):
    """The commands of this package, and behind them those of plugins.

    Contexts and commands are ``Any``: Typer takes them from Click, newer versions from their own
    copy of it.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for the help and for completion; nothing is imported."""
        usable = [plugin.name for plugin in _plugins(ctx) if plugin.fault is None]
        return [*super().list_commands(ctx), *usable]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of this package; for one of a plugin what the help shows of it; or ``None``."""
        own = super().get_command(ctx, cmd_name)
        return own or next((_line(p) for p in _plugins(ctx) if p.name == cmd_name), None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The name, the command and its arguments; this imports a plugin's command.

        Raises:
            PluginError: the plugin cannot be used.
        """
        name, *rest = args
        if name not in self.commands:
            if any(plugin.name == name for plugin in _plugins(ctx)):
                return name, build_command(name, load_plugin("command", name)), rest
            if name in OF_EVALUATIONS and not ctx.resilient_parsing:
                _say_where_it_is(name)
        return super().resolve_command(ctx, args)


def _plugins(ctx: Any) -> list[Plugin]:
    """Commands of plugins, usable or not.

    Names are looked up before the callback runs that takes ``--no-plugins``, hence the context.
    """
    with without_plugins() if ctx.params.get("no_plugins") else nullcontext():
        return [plugin for plugin in find_plugins("command") if not plugin.built_in]


def _line(plugin: Plugin) -> TyperCommand:
    return TyperCommand(
        plugin.name,
        help=f"From {plugin.distribution} {plugin.version}.",
        rich_help_panel="Commands of plugins",
    )


def _say_where_it_is(name: str) -> None:
    typer.echo(
        f"Error: `qnad {name}` comes with {EVALUATIONS}, which is not installed here, or left out "
        f"by --no-plugins or {VARIABLE}. In a checkout of qnad-art: pip install ./evaluations",
        err=True,
    )
    raise typer.Exit(UNAVAILABLE)
