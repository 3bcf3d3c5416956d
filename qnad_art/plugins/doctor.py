"""Checks of plugins, each loaded in a separate process, where it cannot harm others.

``python -m qnad_art.plugins.doctor KIND NAME FILE`` is that process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from qnad_art.errors import PluginError, QnadError
from qnad_art.plugins.contracts import contract_type
from qnad_art.plugins.discovery import Plugin, find_plugin

SLOW = 2.0
"""Seconds above which an import is reported as slow."""
LIMIT = 60.0
"""Seconds after which loading a plugin is abandoned."""


@dataclass(frozen=True)
class Diagnosis:
    """The fault of a plugin (``None`` if it works) and remarks that do not prevent its use.

    ``seconds`` is the duration of its import, without the modules that all plugins of its kind
    import; ``None`` if the import did not finish.
    """

    plugin: Plugin
    fault: str | None
    remarks: tuple[str, ...] = ()
    seconds: float | None = None


def diagnose(plugin: Plugin, *, limit: float = LIMIT) -> Diagnosis:
    """Load a plugin in a separate process, which may exit, hang (for ``limit`` s) or crash."""
    if plugin.fault is not None:
        return Diagnosis(plugin, plugin.fault)
    conflicts = version_conflicts(plugin.distribution)
    fault, seconds = _loaded_elsewhere(plugin, limit)
    slow = seconds is not None and seconds > SLOW
    remarks = (f"slow: its import takes {seconds:.1f} s",) if slow else ()
    return Diagnosis(plugin, fault, (*remarks, *conflicts), seconds)


def version_conflicts(distribution: str) -> tuple[str, ...]:
    """Unmet requirements of an installed distribution, each with the installed version."""
    lines = requires(distribution) or ()
    return tuple(filter(None, (_conflict(Requirement(line)) for line in lines)))


def _conflict(required: Requirement) -> str | None:
    if required.marker is not None and not required.marker.evaluate({"extra": ""}):
        return None
    try:
        found = version(required.name)
    except PackageNotFoundError:
        return f"version conflict: it needs {required}, which is not installed"
    try:
        fits = required.specifier.contains(found, prereleases=True)
    except (InvalidVersion, TypeError):
        fits = False
    return None if fits else f"version conflict: it needs {required}, but {found} is installed"


def _loaded_elsewhere(plugin: Plugin, limit: float) -> tuple[str | None, float | None]:
    """Load a plugin in another process; return its fault and the seconds."""
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    with TemporaryDirectory() as folder:  # also the working directory, from which Python imports
        found, said = Path(folder, "found.json"), Path(folder, "said.txt")
        command = [sys.executable, "-m", __name__, plugin.kind, plugin.name, str(found)]
        with said.open("wb") as errors:
            try:
                ended = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": paths},
                    timeout=limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return f"it did not load within {limit:g} s", None
        if ended == 0 and found.exists():
            fault, seconds = json.loads(found.read_text())
            return fault, seconds
        how = signal.Signals(-ended).name if ended < 0 else f"exit status {ended}"
        last = said.read_text(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"it ends the interpreter ({how})", *last]), None


def _main() -> None:
    kind, name, output = sys.argv[1:]
    plugin = find_plugin(kind, name)
    contract_type(kind)  # import what every plugin of its kind imports, before the clock starts
    started, fault = time.perf_counter(), None
    try:
        plugin.load()
    except PluginError as error:
        fault = error.reason
    except QnadError as error:
        fault = str(error)
    seconds = time.perf_counter() - started
    Path(output).write_text(json.dumps([fault, seconds]))


if __name__ == "__main__":
    _main()
