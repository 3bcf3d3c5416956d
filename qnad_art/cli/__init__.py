"""The command ``qnad``: one module per command, with heavy imports inside the functions."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Annotated

import typer
from typer import Option

from qnad_art.cli import (
    compare,
    describe,
    devices,
    drift,
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
for command in (
    *(quickstart.quickstart, train.train, harden.harden, tune.tune, describe.describe, drift.drift),
    *(resources.resources, verify.verify, evaluate.evaluate, report.report, compare.compare),
):
    app.command()(command)
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
        Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    no_plugins: Annotated[
        bool,
        Option(
            "--no-plugins", is_eager=True, help="Ignore plugins: use only what comes with qnad-art."
        ),
    ] = False,
) -> None:
    if no_plugins:
        context.with_resource(without_plugins())


def _leave_at_once(code: int) -> None:
    """Exit without unloading torch and Qiskit, which would take a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main() -> None:
    """Run the command line; errors of the package print one line instead of a traceback."""
    # A terminated command keeps its work like one that was stopped by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _leave_at_once(INTERRUPTED)
        raise
    except BrokenPipeError:
        # Python flushes stdout at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (QnadError, OSError) as error:  # OSError: the disk is full, or a folder is read-only
        console = Console(stderr=True)
        console.print("Error:", style="bold red", end=" ")
        console.print(str(error), soft_wrap=True)
        sys.exit(1)
