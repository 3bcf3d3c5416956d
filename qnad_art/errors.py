"""Every exception and warning of the package: what is wrong, what is valid, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_MOST_FAULTS = 5


class QnadError(Exception):
    """Base class: ``except QnadError`` catches everything that qnad_art raises on purpose."""


class InvalidInputError(QnadError, ValueError):
    """An argument or an input array has a value, shape or type that cannot be used."""


class UnknownNameError(QnadError, ValueError):
    """A name (device, strategy, data set, model, …) is not registered."""

    def __init__(self, kind: str, name: object, valid: Iterable[str]) -> None:
        names = sorted(valid)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")


class DeviceError(QnadError, ValueError):
    """A quantum device or its description cannot be used."""


class CalibrationError(QnadError, RuntimeError):
    """A quantum-executed layer was run before its scales were calibrated on data."""


class ArtifactError(QnadError, ValueError):
    """A saved file is missing, damaged, of another kind or of another format version."""


class DatasetError(QnadError, ValueError):
    """A data set is not where it should be, or does not hold what it should."""


class DependencyError(QnadError, ImportError):
    """An installed library is missing or does not fit the others."""


class PluginError(QnadError, RuntimeError):
    """A registered name cannot be used: its plugin is broken, or two claim it."""

    def __init__(self, plugin: object, reason: str) -> None:
        super().__init__(
            f"Plugin {plugin} cannot be used: {reason}. `qnad plugins doctor` checks all of them; "
            "`--no-plugins` leaves them out."
        )
        self.plugin = plugin
        self.reason = reason


class QnadWarning(UserWarning):
    """Base class of the package's warnings."""


class CacheWarning(QnadWarning):
    """A cache entry was damaged or could not be written; the value was computed anew."""


class ClippingWarning(QnadWarning):
    """Activations lie outside the calibrated range and saturate."""


def faults(error: ValidationError) -> str:
    """What pydantic found, in a line: ``accuracy.low: Field required; …``."""
    found = error.errors()
    texts = [
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in found[:_MOST_FAULTS]
    ]
    more = len(found) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more else [])])


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    """Which settings of a file (``there``) are not those asked for (``here``), for a message."""
    return "; ".join(
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    )
