"""Exceptions and warnings, whose messages say what is wrong, what is valid and what to do."""

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
    """A data set is missing, or its content is not valid."""


class DependencyError(QnadError, ImportError):
    """A library is missing or does not fit the other installed ones."""


class PluginError(QnadError, RuntimeError):
    """A registered name cannot be used, because its plugin is broken or two plugins claim it."""

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
    """The errors that pydantic found, on one line: ``accuracy.low: Field required; …``."""
    found = error.errors()
    texts = [
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in found[:_MOST_FAULTS]
    ]
    more = len(found) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more else [])])


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    """Message about the settings that differ between a file (``there``) and a call (``here``)."""
    return "; ".join(
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    )
