"""The type that a plugin of each kind must have, checked without running the plugin."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

_TYPES = {
    "device": "qnad_art.device.profile.DeviceProfile",
    "crosstalk model": "qnad_art.circuits.crosstalk_models.CrosstalkModel",
    "drift model": "qnad_art.device.drift.DriftModel",
    "mapping": "qnad_art.layers.mappings.Mapping",
    "strategy": "qnad_art.placement.plan.CrosstalkPlan",
    "engine": "qnad_art.engines.circuit.CircuitEngine",
    "attack": "qnad_art.benchmark.attacks.catalogue.AttackEntry",
    "defence": "qnad_art.benchmark.defences.base.Defence",
    "data set": "qnad_art.datasets.dataset.Dataset",
    "model": "qnad_art.models.architectures.ModelEntry",
    "sink": "qnad_art.benchmark.run.sinks.Sink",
    "command": "typer.Typer",
}


def contract_type(kind: str) -> type:
    """Return the type that plugins of a kind have, derive from, or return."""
    module, _, attribute = _TYPES[kind].rpartition(".")
    found: type = getattr(import_module(module), attribute)
    return found


def contract_fault(kind: str, name: str, loaded: Any) -> str | None:
    """Say why ``loaded``, the target of an entry point, cannot be used; ``None`` if it can.

    ``kind`` is one of :data:`qnad_art.plugins.discovery.KINDS`; ``name`` is the registered name.
    """
    what = f"the class {loaded.__name__}" if isinstance(loaded, type) else type(loaded).__name__
    if kind in ("device", "data set"):
        return None if callable(loaded) else f"is {what}, not a function"
    if kind == "strategy":
        fits = isinstance(loaded, type) and callable(getattr(loaded, "plan", None))
        return None if fits else f"is {what}, not a class with a method plan(module, x, y)"
    expected = contract_type(kind)
    if kind == "command":
        if not (inspect.isfunction(loaded) or isinstance(loaded, expected)):
            return f"is {what}, not a function or an instance of {_TYPES[kind]}"
        from qnad_art.plugins.commands import build_command

        try:
            build_command(name, loaded)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            return f"is not a command that Typer takes: {type(error).__name__}: {reason}"
    elif kind in ("attack", "crosstalk model", "drift model", "mapping", "model"):
        if not isinstance(loaded, expected):
            return f"is {what}, not an instance of {_TYPES[kind]}"
    elif not (isinstance(loaded, type) and issubclass(loaded, expected)):
        return f"is {what}, not a subclass of {_TYPES[kind]}"
    elif inspect.isabstract(loaded):
        return f"does not define {', '.join(sorted(vars(loaded)['__abstractmethods__']))}"
    # Saved results, weights and device profiles are read again by this name.
    if kind in ("crosstalk model", "drift model", "mapping", "defence", "model"):
        own = loaded.usual.name if kind == "model" else getattr(loaded, "name", None)
        if own != name:
            return f"calls itself {own!r}, but is registered as {name!r}"
    return None
