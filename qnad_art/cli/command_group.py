"""The commands of ``qnad``: those of this package and those of plugins."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from qnad_art.plugins.commands import build_command
from qnad_art.plugins.discovery import VARIABLE, Plugin, find_plugins, load_plugin, without_plugins

EVALUATIONS = "qnad-evaluations"
OF_EVALUATIONS = ("bench", "paper", "results")
"""Commands of qnad-evaluations, for which ``qnad`` says how to install it."""
UNAVAILABLE = 2
"""Exit status of a command that does not exist."""


class CommandGroup(TyperGroup):
    """The commands of this package, followed by those of plugins, which are imported when called.

    Contexts and commands are ``Any`` because some versions of Typer have their own copy of Click.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """List names for the help and for completion; no plugin is imported."""
        usable = [plugin.name for plugin in _plugins(ctx) if plugin.fault is None]
        return [*super().list_commands(ctx), *usable]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command of this package, or a line of help for a plugin's, or ``None``."""
        own = super().get_command(ctx, cmd_name)
        return own or next((_line(p) for p in _plugins(ctx) if p.name == cmd_name), None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and arguments, importing a plugin's command.

        Raises PluginError if the plugin cannot be used.
        """
        name, *rest = args
        if name not in self.commands:
            if any(plugin.name == name for plugin in _plugins(ctx)):
                return name, build_command(name, load_plugin("command", name)), rest
            if name in OF_EVALUATIONS and not ctx.resilient_parsing:
                typer.echo(
                    f"Error: `qnad {name}` comes with {EVALUATIONS}, which is not installed, or is "
                    f"excluded by --no-plugins or {VARIABLE}. In a checkout of qnad-art: "
                    "pip install ./evaluations",
                    err=True,
                )
                raise typer.Exit(UNAVAILABLE)
        return super().resolve_command(ctx, args)


def _plugins(ctx: Any) -> list[Plugin]:
    """List the commands of plugins, usable or not.

    Names are looked up before the callback handles ``--no-plugins``, so it is handled here too.
    """
    with without_plugins() if ctx.params.get("no_plugins") else nullcontext():
        return [plugin for plugin in find_plugins("command") if not plugin.built_in]


def _line(plugin: Plugin) -> TyperCommand:
    return TyperCommand(
        plugin.name,
        help=f"From {plugin.distribution} {plugin.version}.",
        rich_help_panel="Commands of plugins",
    )
