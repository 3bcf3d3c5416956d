"""Plugins: what installed distributions add by entry points, found without importing any of it.

One entry-point group a kind (:data:`KINDS`); the built-ins register in this package's own
``pyproject.toml`` in the same way. A name is listed from metadata alone and imported when it is
asked for. A plugin that cannot be used is an error for who asks for it and for nobody else.

``QNAD_PLUGINS`` in the environment is an allow-list of distributions, separated by commas: only
these are looked at besides this package; empty: none (``qnad --no-plugins``).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from qnad_art import __version__
from qnad_art.errors import DependencyError, PluginError, QnadError, UnknownNameError

KINDS: dict[str, str] = {
    "device": "qnad_art.devices",
    "strategy": "qnad_art.crosstalk",
    "engine": "qnad_art.engines",
    "attack": "qnad_art.attacks",
    "defence": "qnad_art.defences",
    "data set": "qnad_art.datasets",
    "model": "qnad_art.models",
    "sink": "qnad_art.sinks",
}
"""Kinds of plugins and their entry-point groups."""

BUILT_IN = "qnad-art"
VARIABLE = "QNAD_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One registered name.

    Args:
        kind: one of :data:`KINDS`.
        name: what users ask for.
        target: ``module:attribute`` that it stands for.
        distribution, version: what registered it; ``"?"`` where its metadata do not say.
        fault: why it cannot be used, as far as metadata tell; ``None`` if they tell nothing.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.distribution} {self.version}"

    @property
    def built_in(self) -> bool:
        """Whether this package registered it."""
        return self.distribution == BUILT_IN

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginError: the import fails, or the metadata already said that it cannot be used.
        """
        if self.fault is not None:
            raise PluginError(self, self.fault)
        with blamed_on(self):
            return EntryPoint(self.name, self.target, KINDS[self.kind]).load()


def find_plugins(kind: str | None = None) -> tuple[Plugin, ...]:
    """All registered names, of one kind or of all, usable or not; nothing is imported."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    return tuple(
        plugin
        for each in KINDS
        if kind in (None, each)
        for plugin in _registered(each, os.environ.get(VARIABLE), tuple(sys.path))
    )


def plugin_names(kind: str) -> list[str]:
    """Sorted names of a kind that can be asked for."""
    return sorted({plugin.name for plugin in find_plugins(kind) if plugin.fault is None})


def find_plugin(kind: str, name: str) -> Plugin:
    """The plugin of that name.

    Raises:
        UnknownNameError: nothing has registered it.
        PluginError: what has registered it cannot be used, or two distributions claim it.
    """
    named = [plugin for plugin in find_plugins(kind) if plugin.name == name]
    usable = [plugin for plugin in named if plugin.fault is None]
    if usable:
        return usable[0]
    if named:
        raise PluginError(named[0], str(named[0].fault))
    raise UnknownNameError(kind, name, plugin_names(kind))


def load_plugin(kind: str, name: str) -> Any:
    """Import what a name stands for; errors as :func:`find_plugin` and :meth:`Plugin.load`."""
    return find_plugin(kind, name).load()


def call_plugin(kind: str, name: str, use: Callable[[Any], Any]) -> Any:
    """``use(what the name stands for)``, exceptions in it blamed on the plugin.

    Errors of this package pass as they are: a plugin may raise them on purpose.
    """
    plugin = find_plugin(kind, name)
    loaded = plugin.load()
    if plugin.built_in:
        return use(loaded)
    with blamed_on(plugin):
        return use(loaded)


@contextmanager
def blamed_on(plugin: Plugin) -> Iterator[None]:
    """Turn what goes wrong inside, even an exit, into a :class:`PluginError` of ``plugin``."""
    try:
        yield
    except QnadError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PluginError(plugin, f"{type(error).__name__}: {reason}".rstrip(": ")) from error


@cache
def _registered(kind: str, allowed: str | None, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Plugins of a kind, sorted by name, built-ins first; ``path`` keys the cache only."""
    found = [_plugin(kind, point) for point in entry_points(group=KINDS[kind])]
    if not any(plugin.built_in for plugin in found):
        raise DependencyError(
            f"{BUILT_IN} has registered no {kind}: it runs from a folder that is not installed. "
            "Install it: pip install ."
        )
    if allowed is not None:
        chosen = {_normalised(name) for name in allowed.split(",")} | {BUILT_IN}
        found = [plugin for plugin in found if _normalised(plugin.distribution) in chosen]
    found.sort(key=lambda plugin: (plugin.name, not plugin.built_in, plugin.distribution))
    return tuple(_with_clash(plugin, found) for plugin in found)


def _plugin(kind: str, point: EntryPoint) -> Plugin:
    owner = getattr(point, "dist", None)
    name, number = _identity(owner)
    fault = None if name == BUILT_IN else _metadata_fault(owner, number)
    if fault is None and not re.fullmatch(
        r"[\w.]+(:[\w.]+)?", point.value.partition("[")[0].strip()
    ):
        fault = f"its entry point {point.value!r} is no module:attribute"
    return Plugin(kind, point.name, point.value, name, number, fault)


def _identity(owner: Distribution | None) -> tuple[str, str]:
    metadata: Any = owner.metadata if owner is not None else {}
    return str(metadata.get("Name") or "?"), str(metadata.get("Version") or "?")


def _metadata_fault(owner: Distribution | None, number: str) -> str | None:
    """Whether the distribution has a version and goes with this one."""
    try:
        Version(number)
    except InvalidVersion:
        return f"its version {number!r} is no version (PEP 440); install it again"
    for line in (owner.requires if owner is not None else None) or ():
        try:
            required = Requirement(line)
        except InvalidRequirement:
            return f"its requirement {line!r} cannot be read (PEP 508)"
        ours = _normalised(required.name) == BUILT_IN and not required.marker
        if ours and not required.specifier.contains(__version__, prereleases=True):
            return f"it needs {BUILT_IN} {required.specifier}, and {__version__} is installed"
    return None


def _with_clash(plugin: Plugin, found: list[Plugin]) -> Plugin:
    """A built-in keeps its name; of others that claim one name, none has it."""
    others = [
        other
        for other in found
        if other.name == plugin.name and other.distribution != plugin.distribution
    ]
    if plugin.built_in or not others or plugin.fault is not None:
        return plugin
    rivals = ", ".join(f"{other.distribution} {other.version}" for other in others)
    fault = f"{rivals} claims the name too; uninstall one, or name those to use in {VARIABLE}"
    return replace(plugin, fault=fault)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
