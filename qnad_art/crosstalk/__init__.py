"""Crosstalk plans and the strategies that make them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.lazy import lazy_names
from qnad_art.plugins.discovery import call_plugin, load_plugin

if TYPE_CHECKING:
    from torch import Tensor

    from qnad_art.crosstalk.paper import Paper as Paper
    from qnad_art.crosstalk.random import Random as Random
    from qnad_art.crosstalk.tuned import Tuned as Tuned
    from qnad_art.crosstalk.uniform import Uniform as Uniform
    from qnad_art.network.module import QuantumExecutedModule
    from qnad_art.placement.plan import CrosstalkPlan

_LAZY = {
    "Paper": "qnad_art.crosstalk.paper",
    "Random": "qnad_art.crosstalk.random",
    "Tuned": "qnad_art.crosstalk.tuned",
    "Uniform": "qnad_art.crosstalk.uniform",
}
__all__ = [*_LAZY, "Strategy", "build_strategy", "strategy_settings"]
__getattr__, __dir__ = lazy_names(__name__, _LAZY)


class Strategy(Protocol):
    """What chooses weights and pair counts. Settings are the constructor's keyword arguments.

    A strategy may also have the attributes of :class:`Traits`, and a method
    ``check_device(device, sites)`` that refuses a device before a network is converted, see
    :meth:`~qnad_art.crosstalk.tuned.Tuned.check_device`.
    """

    @property
    def name(self) -> str:
        """Name under which plans record the strategy."""

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """A plan for ``module`` from inputs ``x`` (N, …) and class indices ``y`` (N,)."""


@dataclass(frozen=True)
class Traits:
    """What a strategy's class may say of itself, by attributes of these names.

    Args:
        takes: settings of its constructor that whoever uses it fills in: ``seed``, ``max_pairs``,
            ``clip``, ``mean``, ``std``, ``checkpoint``, ``resume``, ``on_epoch`` and ``on_step``,
            with the meaning that they have in :class:`~qnad_art.crosstalk.tuned.Tuned`.
        prefers: the execution that suits it where the user leaves the choice, such as
            ``{"bias": "quantum"}``.
        ranks: whether it ranks weights on the inputs that it is given, which may then be
            adversarial examples.
    """

    takes: frozenset[str] = frozenset()
    prefers: Mapping[str, Any] = field(default_factory=dict)
    ranks: bool = True


def traits(strategy: str | Strategy) -> Traits:
    """What a strategy, an instance or the one of a name, says of itself."""
    made = load_plugin("strategy", strategy) if isinstance(strategy, str) else strategy
    own = {f.name: getattr(made, f.name) for f in fields(Traits) if hasattr(made, f.name)}
    return Traits(**own)


def taken(strategy: str, **offered: Any) -> dict[str, Any]:
    """Those of the ``offered`` settings that a strategy takes."""
    takes = traits(strategy).takes
    return {name: value for name, value in offered.items() if name in takes}


def build_strategy(strategy: str | Strategy, **settings: Any) -> Strategy:
    """A strategy from its name and settings (an instance is returned as it is).

    Raises:
        UnknownNameError: no such strategy, or it has no such setting.
        PluginError: the plugin that has the name is broken.
        InvalidInputError: the strategy refuses a value.
    """
    if not isinstance(strategy, str):
        if settings:
            raise InvalidInputError(
                f"settings {sorted(settings)} go with a strategy's name, not with an instance."
            )
        return strategy
    valid = strategy_settings(strategy)
    for name in settings:
        if name not in valid:
            raise UnknownNameError(f"setting of strategy {strategy!r}:", name, valid)
    built: Strategy = call_plugin("strategy", strategy, lambda made: made(**settings))
    return built


def strategy_settings(strategy: str) -> list[str]:
    """Names of the settings that a strategy has."""
    return call_plugin("strategy", strategy, lambda made: list(inspect.signature(made).parameters))
