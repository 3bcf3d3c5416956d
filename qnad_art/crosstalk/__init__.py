"""Crosstalk plans and the strategies that make them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.plugins.discovery import call_plugin

if TYPE_CHECKING:
    from torch import Tensor

    from qnad_art.network.module import QuantumExecutedModule
    from qnad_art.placement.plan import CrosstalkPlan


class Strategy(Protocol):
    """What chooses weights and pair counts. Settings are the constructor's keyword arguments.

    A strategy's class may also say, each being optional:

    - ``takes``, a frozenset: settings that whoever uses the strategy fills in if they are here:
      ``seed``, ``max_pairs``, ``clip``, ``mean``, ``std``, ``checkpoint``, ``resume``, ``on_epoch``
      and ``on_step``, with the meaning that they have in
      :class:`~qnad_art.training.adversarial.AdversarialSettings`;
    - ``prefers``, a mapping: the execution that suits it where the user leaves the choice, such as
      ``{"bias": "quantum"}``;
    - ``ranks``, a bool: whether the plan depends on the inputs that are given; they may then be
      adversarial examples. It does unless the strategy says otherwise.
    """

    @property
    def name(self) -> str:
        """Name under which plans record the strategy."""

    def plan(self, module: QuantumExecutedModule, x: Tensor, y: Tensor) -> CrosstalkPlan:
        """A plan for ``module`` from inputs ``x`` (N, …) and class indices ``y`` (N,)."""


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

    def build(factory: Any) -> Strategy:
        valid = inspect.signature(factory).parameters
        for name in settings:
            if name not in valid:
                raise UnknownNameError(f"setting of strategy {strategy!r}:", name, valid)
        built: Strategy = factory(**settings)
        return built

    return call_plugin("strategy", strategy, build)


def taken(strategy: str, **offered: Any) -> dict[str, Any]:
    """Those of the ``offered`` settings that a strategy says it takes."""
    takes = call_plugin("strategy", strategy, lambda factory: getattr(factory, "takes", ()))
    return {name: value for name, value in offered.items() if name in takes}


def preferred(strategy: Any) -> Mapping[str, Any]:
    """The execution that a strategy, or its class, says it prefers."""
    prefers: Mapping[str, Any] = getattr(strategy, "prefers", {})
    return prefers
