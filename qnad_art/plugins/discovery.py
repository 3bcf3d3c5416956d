"""Plugins that installed distributions register by entry points, found without importing them.

Each kind has an entry-point group (:data:`KINDS`), in which this package registers its built-ins as
well. Names are listed from metadata alone; a plugin is imported only when it is requested. A broken
plugin is an error only for the code that requests it. The name of a device plugin may contain a
star, as in ``ibm_*``: the plugin then makes every device whose name fits.

The environment variable ``QNAD_PLUGINS`` is a comma-separated allow-list of distributions: only
these are considered in addition to this package. If it is empty, none are (``qnad --no-plugins``).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from qnad_art.environment import variables
from qnad_art.errors import DependencyError, PluginError, QnadError, UnknownNameError
from qnad_art.plugins.contracts import contract_fault
from qnad_art.version import __version__

if TYPE_CHECKING:
    from importlib.metadata import Distribution

KINDS: dict[str, str] = {
    "device": "qnad_art.devices",
    "crosstalk model": "qnad_art.crosstalk_models",
    "drift model": "qnad_art.drift_models",
    "mapping": "qnad_art.mappings",
    "strategy": "qnad_art.crosstalk",
    "engine": "qnad_art.engines",
    "attack": "qnad_art.attacks",
    "defence": "qnad_art.defences",
    "data set": "qnad_art.datasets",
    "model": "qnad_art.models",
    "sink": "qnad_art.sinks",
    "command": "qnad_art.commands",
}
"""Kinds of plugins and their entry-point groups."""

Made = TypeVar("Made")

BUILT_IN = "qnad-art"
VARIABLE = "QNAD_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One registered plugin.

    Args:
        kind: one of :data:`KINDS`.
        name: the name that users give, or a pattern of names with ``*``.
        target: the ``module:attribute`` that the name stands for.
        distribution, version: the package that registered it; ``"?"`` if its metadata are broken.
        fault: why it cannot be used, according to metadata; ``None`` if they show no fault.
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

    def answers_to(self, name: str) -> bool:
        """Whether the plugin provides ``name``."""
        return self.name == name or ("*" in self.name and fnmatchcase(name, self.name))

    def load(self) -> Any:
        """Import the target and check its type.

        Raises PluginError if the metadata show a fault, the import fails, or the type is wrong.
        """
        if self.fault is not None:
            raise PluginError(self, self.fault)
        with blamed_on(self):
            from importlib.metadata import EntryPoint

            loaded = EntryPoint(self.name, self.target, KINDS[self.kind]).load()
            fault = None if self.built_in else contract_fault(self.kind, self.name, loaded)
        if fault is not None:
            raise PluginError(self, f"{self.target} {fault}")
        return loaded


def find_plugins(kind: str | None = None) -> tuple[Plugin, ...]:
    """List the registered plugins of one kind or of all, usable or not; nothing is imported."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    return tuple(
        plugin
        for plugin in _registered(os.environ.get(VARIABLE), tuple(sys.path))
        if kind in (None, plugin.kind)
    )


def plugin_names(kind: str) -> list[str]:
    """Sorted names of the usable plugins of a kind."""
    return sorted({plugin.name for plugin in find_plugins(kind) if plugin.fault is None})


def find_plugin(kind: str, name: str) -> Plugin:
    """Find the plugin of a name.

    Raises UnknownNameError if the name is not registered, and PluginError if the plugin cannot be
    used or two distributions claim its name.
    """
    answering = [plugin for plugin in find_plugins(kind) if plugin.answers_to(name)]
    # A built-in keeps its names, and a name counts for more than a pattern.
    answering.sort(key=lambda plugin: (not plugin.built_in, plugin.name != name))
    named = [plugin for plugin in answering if plugin.name == answering[0].name]
    usable = [plugin for plugin in named if plugin.fault is None]
    if usable:
        return usable[0]
    if named:
        raise PluginError(named[0], str(named[0].fault))
    raise UnknownNameError(kind, name, plugin_names(kind))


def provider(kind: str, name: str) -> str | None:
    """Distribution and version behind a name; ``None`` for built-ins and unregistered names."""
    for plugin in find_plugins(kind):
        if plugin.answers_to(name) and plugin.fault is None and not plugin.built_in:
            return f"{plugin.distribution} {plugin.version}"
    return None


def load_plugin(kind: str, name: str) -> Any:
    """Import the plugin of a name; raises like :func:`find_plugin` and :meth:`Plugin.load`."""
    return find_plugin(kind, name).load()


def call_plugin(kind: str, name: str, use: Callable[[Any], Made]) -> Made:
    """Return ``use(target)`` for the target of a name; exceptions are blamed on the plugin."""
    plugin = find_plugin(kind, name)
    with blamed_on(plugin):
        return use(plugin.load())


@contextmanager
def blamed_on(plugin: Plugin) -> Iterator[None]:
    """Turn any exception in a third-party plugin, even an exit, into a :class:`PluginError`.

    Errors of this package are not changed, because a plugin may raise them on purpose.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if plugin.built_in or isinstance(error, QnadError):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise PluginError(plugin, f"{type(error).__name__}: {reason}".rstrip(": ")) from error


@contextmanager
def without_plugins() -> Iterator[None]:
    """Context in which this process and its child processes have only the built-ins."""
    with variables({VARIABLE: ""}):
        yield


@cache
def _registered(allowed: str | None, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """All plugins by kind and name, built-ins first; ``path`` is only a key of the cache."""
    from importlib.metadata import distributions

    by_owner: dict[str, list[Plugin]] = {}
    for owner in distributions():
        plugins = _plugins_of(owner)
        if plugins:  # if two versions are installed, Python imports the first on its path
            by_owner.setdefault(_normalised(plugins[0].distribution), plugins)
    if BUILT_IN not in by_owner:
        raise DependencyError(
            f"{BUILT_IN} has registered nothing: it runs from a folder that is not installed. "
            "Install it: pip install ."
        )
    if allowed is not None:
        chosen = {_normalised(name) for name in allowed.split(",")} | {BUILT_IN}
        by_owner = {owner: each for owner, each in by_owner.items() if owner in chosen}
    found = [plugin for plugins in by_owner.values() for plugin in plugins]
    kinds = list(KINDS)
    found.sort(key=lambda p: (kinds.index(p.kind), p.name, not p.built_in, p.distribution))
    return tuple(_with_clash(plugin, found) for plugin in found)


def _plugins_of(owner: Distribution) -> list[Plugin]:
    lines = list(_lines(owner))
    if not lines:
        return []
    name, number, fault = _identity(owner)
    return [_plugin(kind, line, name, number, fault) for kind, line in lines]


def _lines(owner: Distribution) -> Iterator[tuple[str, str]]:
    """Kind and line of each entry point in our groups.

    The file is parsed here, because :func:`importlib.metadata.entry_points` fails as a whole if one
    line of one distribution is malformed (and takes 50 times as long).
    """
    try:
        text = owner.read_text("entry_points.txt") or ""
    except (OSError, ValueError):  # unreadable, so its groups are unknown
        return
    kinds = {f"[{group}]": kind for kind, group in KINDS.items()}
    kind = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            kind = kinds.get(line)
        elif kind is not None and line and not line.startswith("#"):
            yield kind, line


def _plugin(kind: str, line: str, owner: str, number: str, fault: str | None) -> Plugin:
    name, _, target = map(str.strip, line.partition("="))
    if fault is None and not (name and re.fullmatch(r"[\w.]+(:[\w.]+)?(\s*\[.*\])?", target)):
        fault = f"its entry point {line!r} is not of the form name = module:attribute"
    return Plugin(kind, name, target, owner, number, fault)


def _identity(owner: Distribution) -> tuple[str, str, str | None]:
    """Name and version of a distribution, and the fault that its metadata show, if any."""
    try:
        metadata: Any = owner.metadata
        name, number = metadata.get("Name"), metadata.get("Version")
        requirements = owner.requires or []
    except (OSError, TypeError, ValueError):  # without metadata, or not text
        name = None
    if not name:
        return "?", "?", f"its metadata in {owner.locate_file('')} cannot be read; install it again"
    if name == BUILT_IN:
        return name, number, None
    from packaging.version import InvalidVersion, Version

    try:
        Version(number or "")
    except InvalidVersion:
        return name, number or "?", f"its version {number!r} is not a version (PEP 440)"
    return name, number, next(filter(None, map(_requirement_fault, requirements)), None)


def _requirement_fault(line: str) -> str | None:
    """Say why a distribution with this requirement is incompatible with this package."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        required = Requirement(line)
    except InvalidRequirement:
        return f"its requirement {line!r} cannot be read (PEP 508)"
    applies = required.marker is None or required.marker.evaluate({"extra": ""})
    fits = required.specifier.contains(__version__, prereleases=True)
    if not applies or _normalised(required.name) != BUILT_IN or fits:
        return None
    return f"it needs {BUILT_IN} {required.specifier}, but {__version__} is installed"


def _with_clash(plugin: Plugin, found: list[Plugin]) -> Plugin:
    """Mark a clash: built-ins keep their names; a name with several claims belongs to none."""
    if plugin.built_in or plugin.fault is not None:
        return plugin
    others = [
        other
        for other in found
        if (other.kind, other.fault) == (plugin.kind, None)
        and (other.name == plugin.name or (other.built_in and other.answers_to(plugin.name)))
        and other.distribution != plugin.distribution
    ]
    if not others:
        return plugin
    if others[0].built_in:
        return replace(plugin, fault=f"{BUILT_IN} has a built-in {plugin.kind} of that name")
    rivals = " and ".join(f"{other.distribution} {other.version}" for other in others)
    fault = f"{rivals} claims the name too; uninstall one, or name those to use in {VARIABLE}"
    return replace(plugin, fault=fault)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
