"""Defences by name, and their compositions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, ValidationInfo

from qnad_art.benchmark.defences.base import Defence
from qnad_art.errors import InvalidInputError, QnadError, UnknownNameError
from qnad_art.plugins.discovery import find_plugins, load_plugin, plugin_names

NONE = "none"


def defence_names() -> list[str]:
    """Names of the defences; :func:`build_steps` takes classes of ART too.

    ``qnad-tuned`` is ``qnad`` with the strategy ``tuned``, and so for every other strategy.
    """
    with_strategy = (f"qnad-{strategy}" for strategy in plugin_names("strategy"))
    return sorted({NONE, *plugin_names("defence"), *with_strategy})


def build_steps(spec: Any, folder: Path | None = None) -> tuple[Defence, ...]:
    """The steps of a defence.

    Args:
        spec: a name; a mapping of ``name`` and settings; a list of those, applied in order; or
            steps. ``"none"`` is the empty composition. A name that begins with ``art.defences.``
            is a preprocessor or trainer of ART.
        folder: folder that paths in settings start from; ``None`` for the working directory.

    Raises:
        UnknownNameError: there is no such defence, or it has no such setting.
        InvalidInputError: a value cannot be used, or steps cannot be combined.
    """
    parts = spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    steps = tuple(step for part in parts for step in _step(part, folder))
    _check_order(steps)
    return steps


def steps_content(steps: Sequence[Defence]) -> list[dict[str, Any]]:
    """Name and all settings of every step as JSON that :func:`build_steps` takes."""
    return [{"name": step.name, **step.content()} for step in steps]


def steps_identity(steps: Sequence[Defence]) -> list[dict[str, Any]]:
    """As :func:`steps_content`, but files are named by their content and not by their path."""
    return [{"name": step.name, **step.identity()} for step in steps]


def steps_in(value: Any, info: ValidationInfo) -> tuple[Defence, ...]:
    """:func:`build_steps` as a validator; paths start from the ``folder`` of the context."""
    return build_steps(value, (info.context or {}).get("folder"))


def _step(part: Any, folder: Path | None) -> tuple[Defence, ...]:
    if isinstance(part, Defence):
        return (part,)
    if isinstance(part, str):
        part = {"name": part}
    if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
        raise InvalidInputError(
            f"A defence is a name such as 'madry', a mapping with one such as {{'name': 'madry', "
            f"'epochs': 5}}, or a list of those, not {part!r}."
        )
    name = part["name"]
    settings = {key: value for key, value in part.items() if key != "name"}
    if name.startswith("art.defences."):
        from qnad_art.benchmark.defences.by_class import build_by_class

        return (_checked(name, lambda: build_by_class(name, settings)),)
    if name == NONE and not settings:
        return ()
    registered = name
    if all(name != plugin.name for plugin in find_plugins("defence")):
        if name not in defence_names():
            raise UnknownNameError("defence", name, defence_names())
        registered, _, settings["strategy"] = name.partition("-")
    defence: type[Defence] = load_plugin("defence", registered)
    valid = defence.settings_of(settings)
    for setting in settings:
        if setting not in valid:
            raise UnknownNameError(f"setting of defence {name!r}:", setting, valid)
    return (_checked(name, lambda: defence.model_validate(settings, context={"folder": folder})),)


def _checked(name: str, build: Callable[[], Defence]) -> Defence:
    """``build()``, whose errors name the defence, the setting and its value."""
    try:
        return build()
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, QnadError) and not first["loc"]:
            raise InvalidInputError(f"Defence {name!r}: {cause}") from error
        setting = ".".join(map(str, first["loc"]))
        problem = "is missing" if first["type"] == "missing" else f"is {first['input']!r}"
        message = cause or first["msg"]
        raise InvalidInputError(f"Defence {name!r}: {setting} {problem}: {message}") from error


def _check_order(steps: Sequence[Defence]) -> None:
    """Raise InvalidInputError for steps that cannot be combined."""
    for number, step in enumerate(steps):
        # A control's reference is fitted to the result of the steps before it.
        _check_together([*steps[:number], *getattr(step, "of", ())])
    _check_together(steps)


def _check_together(steps: Sequence[Defence]) -> None:
    names = [content["name"] for content in steps_content(steps)]
    circuits = [name for step, name in zip(steps, names, strict=True) if step.executes]
    if len(circuits) > 1:
        raise InvalidInputError(
            f"{' and '.join(circuits)} both run the network as circuits; use one of them."
        )
    for kind in ("pni", "rse"):
        if names.count(kind) > 1:
            raise InvalidInputError(f"{kind} is given twice; once is enough.")
    if circuits and "pni" in names:
        raise InvalidInputError(
            f"pni and {circuits[0]} cannot be combined: circuits are made for fixed weights, and "
            "parametric noise injection draws new ones in every pass."
        )
