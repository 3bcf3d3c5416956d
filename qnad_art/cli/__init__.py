"""The command ``qnad``; one module a command, heavy imports inside the commands."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Annotated

import typer

from qnad_art.cli import (
    compare,
    describe,
    devices,
    evaluate,
    harden,
    plugins,
    quickstart,
    report,
    resources,
    train,
    tune,
    verify,
)
from qnad_art.cli.command_group import CommandGroup
from qnad_art.cli.screen import Console
from qnad_art.errors import QnadError
from qnad_art.plugins.discovery import without_plugins
from qnad_art.version import __version__

INTERRUPTED = 130

app = typer.Typer(
    name="qnad",
    cls=CommandGroup,
    help="Run PyTorch networks as noisy quantum circuits, attack them, and defend them with "
    "crosstalk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(quickstart.quickstart)
app.command()(train.train)
app.command()(harden.harden)
app.command()(tune.tune)
app.command()(describe.describe)
app.command()(resources.resources)
app.command()(verify.verify)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(compare.compare)
app.add_typer(devices.app, name="devices")
app.add_typer(plugins.app, name="plugins")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"qnad-art {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    no_plugins: Annotated[
        bool,
        typer.Option(
            "--no-plugins",
            is_eager=True,
            help="Ignore plugins: use only what comes with qnad-art.",
        ),
    ] = False,
) -> None:
    if no_plugins:
        context.with_resource(without_plugins())


def _leave_at_once(code: int) -> None:
    """Exit without taking apart what torch and Qiskit have loaded, which takes a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main() -> None:
    """Entry point: errors of the package are printed as one line, without a traceback."""
    # A terminated command keeps its work in the same way as one that was stopped by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _leave_at_once(INTERRUPTED)
        raise
    except BrokenPipeError:
        # Python flushes stdout at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (QnadError, OSError) as error:  # a full disk, or a folder that may not be written to
        console = Console(stderr=True)
        console.print("Error:", style="bold red", end=" ")
        console.print(str(error), soft_wrap=True)
        sys.exit(1)
