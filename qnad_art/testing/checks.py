"""Conformance suites: named checks of one subject, which run together or one by one."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import isfunction, signature
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from qnad_art.errors import QnadError, UnknownNameError
from qnad_art.plugins.discovery import KINDS, load_plugin

Case = TypeVar("Case")
Given = ParamSpec("Given")


@dataclass(frozen=True)
class Check(Generic[Case]):
    """One named check; call it with the subject and the options of its suite.

    Args:
        suite: the suite to which the check belongs.
        run: function that checks a case and raises AssertionError through :func:`expect`.
    """

    suite: Suite[Case]
    run: Callable[[Case], None]

    @property
    def name(self) -> str:
        """The requirement as a name, e.g. ``plan_obeys_the_fraction``."""
        return self.run.__name__

    def __call__(self, subject: Any, **options: Any) -> None:
        """Check ``subject``; raise AssertionError with what was found and what is expected."""
        self.on(subject, self.suite.prepare(subject, **options))

    def on(self, subject: Any, case: Case) -> None:
        """Check a subject for which the case is already prepared."""
        what = subject if isinstance(subject, str) else getattr(subject, "__name__", subject)
        place = f"{self.suite.kind} {what!r}, check {self.name}"
        try:
            self.run(case)
        except AssertionError as error:
            raise AssertionError(f"{place}: {error}") from error
        except Exception as error:
            fault = f"found {type(error).__name__}: {error}; expected no exception here"
            raise AssertionError(f"{place}: {fault}") from error


class Suite(Generic[Case]):
    """The checks of one kind of plugin, as in :data:`qnad_art.plugins.discovery.KINDS`."""

    prepare: Callable[..., Case]
    checks: tuple[Check[Case], ...]

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run_on(self, prepare: Callable[Given, Case]) -> Callable[Given, None]:
        """Decorate ``prepare(subject, **options)``, which returns the case, to run all checks.

        The checks are the public functions above it in its module whose only parameter is ``case``.
        The decorated function runs them in order and raises at the first failure.
        """
        self.prepare = prepare
        above = filter(isfunction, vars(sys.modules[prepare.__module__]).values())
        self.checks = tuple(
            Check(self, function)
            for function in above
            if [*signature(function).parameters] == ["case"] and function.__name__[0] != "_"
        )

        @wraps(prepare)
        def check_all(*args: Given.args, **options: Given.kwargs) -> None:
            case = prepare(*args, **options)
            subject = signature(prepare).bind(*args, **options).args[0]
            for check in self.checks:
                check.on(subject, case)

        return check_all


def checks_for(kind: str) -> list[tuple[str, Check[Any]]]:
    """(name, check) of every check of a kind of plugin; ``check(subject, **options)`` runs it.

    Options are those of the kind's ``check_…`` function. Raises UnknownNameError for a kind that
    is not in :data:`qnad_art.plugins.discovery.KINDS`.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    name = "dataset" if kind == "data set" else kind.replace(" ", "_")
    suite: Suite[Any] = import_module(f"qnad_art.testing.check_{name}").SUITE
    return [(check.name, check) for check in suite.checks]


def registered(kind: str, subject: Any) -> Any:
    """Load the plugin of a name; any other subject is returned unchanged.

    Raises:
        UnknownNameError, PluginError: as for :func:`qnad_art.plugins.discovery.load_plugin`.
    """
    return load_plugin(kind, subject) if isinstance(subject, str) else subject


def name_of(subject: Any) -> str | None:
    """The registered name by which a subject was given; ``None`` if it is an object."""
    return subject if isinstance(subject, str) else None


def expect(holds: object, *, found: object, expected: str) -> None:
    """Raise AssertionError unless ``holds`` (``assert`` would vanish under ``python -O``)."""
    if not holds:
        raise AssertionError(f"found {found}; expected {expected}")


def expect_type(value: object, kind: type) -> None:
    """Raise AssertionError unless ``value`` is an instance of ``kind``."""
    found = f"an object of type {type(value).__name__}"
    expect(isinstance(value, kind), found=found, expected=f"one of type {kind.__name__}")


def expect_name(name: str, registered_as: str | None) -> None:
    """Raise AssertionError if ``name`` is not the name under which the subject is registered."""
    expect(
        registered_as in (None, name),
        found=f"name {name!r}",
        expected=f"{registered_as!r}, under which it is registered",
    )


def expect_unchanged(
    before: Mapping[str, Any], after: Mapping[str, Any], *, by: str, expected: str
) -> None:
    """Raise AssertionError with the names whose values (arrays, flags, …) differ."""
    changed = sorted(before.keys() ^ after.keys())
    common = [name for name in before if name in after]
    changed += [name for name in common if not np.array_equal(before[name], after[name])]
    expect(not changed, found=f"that {by} changed {', '.join(changed)}", expected=expected)


def expect_numbers(
    found: Any, shape: tuple[int, ...], *, low: float = -math.inf, high: float = math.inf
) -> None:
    """Raise AssertionError unless ``found`` is an array of finite numbers from low to high."""
    expect(
        isinstance(found, np.ndarray) and found.shape == shape,
        found=f"{type(found).__name__} of shape {np.shape(found)}",
        expected=f"an array of shape {shape}",
    )
    least, most = float(np.min(found)), float(np.max(found))
    expect(
        math.isfinite(least + most) and low <= least and most <= high,
        found=f"values from {least:g} to {most:g}",
        expected=f"finite numbers from {low:g} to {high:g}",
    )


@contextmanager
def expect_refusal(what: str) -> Iterator[None]:
    """Context that must raise a QnadError and not any other exception."""
    try:
        yield
    except QnadError:
        return
    except Exception as error:
        fault = f"{what} raised {type(error).__name__}: {error}"
        raise AssertionError(
            f"found that {fault}; expected a QnadError, e.g. InvalidInputError"
        ) from error
    raise AssertionError(f"found that {what} is accepted; expected a QnadError")
