"""``qnad plugins``: list, show and check plugins."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from typer import Argument, Option

from qnad_art.cli.screen import Console
from qnad_art.errors import QnadError, UnknownNameError
from qnad_art.plugins.discovery import KINDS, Plugin, find_plugins

app = typer.Typer(help="List, show and check plugins.", no_args_is_help=True)

Kind = Annotated[
    str | None,
    Option(
        help="Kind of plugin, such as device, strategy, engine or attack. The default is all kinds."
    ),
]


@app.command("list")
def list_plugins(
    kind: Kind = None,
    everything: Annotated[bool, Option("--all", help="List the built-in names too.")] = False,
) -> None:
    """List plugins by kind. Only their metadata is read; nothing is imported."""
    headings = ("kind", "name", "distribution", "version", "status")
    table = Table(*(Column(heading, overflow="fold") for heading in headings), box=SIMPLE_HEAD)
    for each in KINDS if kind is None else [kind]:
        found = find_plugins(each)
        built_in = [plugin for plugin in found if plugin.built_in]
        if not everything:
            found = tuple(plugin for plugin in found if not plugin.built_in)
            first = built_in[0]
            folded = f"{len(built_in)} built-in (--all)"
            table.add_row(each, folded, first.distribution, first.version, "")
        for plugin in found:
            status = plugin.fault or ("built-in" if plugin.built_in else "installed")
            table.add_row(each, plugin.name, plugin.distribution, plugin.version, status)
    Console(soft_wrap=True).print(table)


@app.command()
def show(
    name: Annotated[str, Argument(help="Name as in `qnad plugins list`.")],
    kind: Kind = None,
) -> None:
    """Show what a name stands for, where it comes from, and its documentation."""
    found = find_plugins(kind)
    named = [plugin for plugin in found if plugin.answers_to(name)]
    if not named:
        raise UnknownNameError(kind or "plugin", name, {plugin.name for plugin in found})
    console = Console(soft_wrap=True)
    broken = [plugin for plugin in named if not _show(console, plugin)]
    raise typer.Exit(1 if broken else 0)


@app.command()
def doctor(
    time_limit: Annotated[float, Option(help="Seconds that each plugin may take to load.")] = 60,
) -> None:
    """Check every plugin by loading it in a process of its own.

    The exit status is 1 if a plugin is broken.
    """
    from qnad_art.plugins.doctor import diagnose

    console = Console(soft_wrap=True)
    plugins = [plugin for plugin in find_plugins() if not plugin.built_in]
    broken = 0
    for plugin in plugins:
        diagnosis = diagnose(plugin, limit=time_limit)
        broken += diagnosis.fault is not None
        took = "" if diagnosis.seconds is None else f" ({diagnosis.seconds:.1f} s)"
        console.print("ok    " if diagnosis.fault is None else "BROKEN", f"{plugin}{took}")
        for line in filter(None, (diagnosis.fault, *diagnosis.remarks)):
            console.print(f"         {line}")
    console.print(f"{len(plugins)} plugins besides the built-in ones, {broken} broken.")
    raise typer.Exit(1 if broken else 0)


def _show(console: Console, plugin: Plugin) -> bool:
    """Print a plugin; return whether it can be used."""
    console.print(f"{plugin.kind} {plugin.name!r}")
    console.print(f"  target        {plugin.target}")
    console.print(f"  distribution  {plugin.distribution} {plugin.version}")
    if plugin.distribution != "?":
        from importlib.metadata import requires

        lines = requires(plugin.distribution) or ()
        needed = [line for line in lines if "extra ==" not in line]
        console.print(f"  requires      {', '.join(needed) or 'nothing'}")
    try:
        loaded = plugin.load()
    except QnadError as error:
        console.print(f"  broken        {error}\n")
        return False
    # The docstring of an instance would be that of its class.
    text = inspect.getdoc(loaded) if callable(loaded) else _facts(loaded)
    console.print(f"\n{text or 'It has no docstring.'}\n")
    return True


def _facts(entry: object) -> str:
    """Return the fields of an entry that is neither a class nor a function, one per line."""
    if not is_dataclass(entry):
        return repr(entry)
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    told = {name: value for name, value in values.items() if not callable(value)}
    width = max(map(len, told), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in told.items())
