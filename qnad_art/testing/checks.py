"""Conformance suites: named checks of one subject, which run together or one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qnad_art.errors import QnadError
from qnad_art.plugins.discovery import load_plugin

Case = TypeVar("Case")


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
        try:
            self.run(case)
        except AssertionError as error:
            raise AssertionError(f"{self._place(subject)}: {error}") from error
        except Exception as error:
            fault = f"found {type(error).__name__}: {error}; expected no exception here"
            raise AssertionError(f"{self._place(subject)}: {fault}") from error

    def _place(self, subject: Any) -> str:
        what = subject if isinstance(subject, str) else getattr(subject, "__name__", subject)
        return f"{self.suite.kind} {what!r}, check {self.name}"


class Suite(Generic[Case]):
    """The checks of one kind of plugin.

    Args:
        kind: kind of plugin, as in :data:`qnad_art.plugins.discovery.KINDS`.
        prepare: ``prepare(subject, **options)`` returns the case, the argument of the checks.
        checks: functions of the case; their names are the names of the checks.
    """

    def __init__(
        self, kind: str, prepare: Callable[..., Case], *checks: Callable[[Case], None]
    ) -> None:
        self.kind = kind
        self.prepare = prepare
        self.checks = tuple(Check(self, check) for check in checks)

    def run(self, subject: Any, **options: Any) -> None:
        """Run all checks in order and raise at the first failure."""
        case = self.prepare(subject, **options)
        for check in self.checks:
            check.on(subject, case)


def registered(kind: str, subject: Any) -> Any:
    """Load the plugin of a name; any other subject is returned unchanged.

    Raises:
        UnknownNameError, PluginError: as for :func:`qnad_art.plugins.discovery.load_plugin`.
    """
    return load_plugin(kind, subject) if isinstance(subject, str) else subject


def expect(holds: object, *, found: object, expected: str) -> None:
    """Raise AssertionError unless ``holds`` (``assert`` would vanish under ``python -O``)."""
    if not holds:
        raise AssertionError(f"found {found}; expected {expected}")


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
