"""The suite for crosstalk strategies: every built-in passes, and each fault is found."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from qnad_art.crosstalk.uniform import Uniform
from qnad_art.errors import UnknownNameError
from qnad_art.placement.plan import LayerPlan
from qnad_art.plugins.discovery import plugin_names
from qnad_art.testing import check_strategy, checks_for

SETTINGS = {"tuned": {"epochs": 1, "attack_steps": 1}}


@pytest.mark.filterwarnings("ignore:Tuning ended without any crosstalk")
@pytest.mark.parametrize("strategy", plugin_names("strategy"))
@pytest.mark.parametrize(("name", "check"), checks_for("strategy"))
def test_built_in_conforms(strategy, name, check):
    check(strategy, **SETTINGS.get(strategy, {}))


def changed_layers(plan, change):
    return replace(plan, layers={name: change(layer) for name, layer in plan.layers.items()})


@dataclass(frozen=True)
class Nameless(Uniform):
    name = ""


class NoFraction:
    name = "no-fraction"

    def __init__(self, share=0.3):
        self.share = share


@dataclass(frozen=True)
class IgnoresFraction(Uniform):
    def plan(self, module, x, y):
        return replace(Uniform(0.5).plan(module, x, y), requested=self.fraction)


@dataclass(frozen=True)
class NeverInjects(Uniform):
    def plan(self, module, x, y):
        return replace(super().plan(module, x, y), layers=module.plan.layers)


@dataclass(frozen=True)
class ForgetsWhatWasAsked(Uniform):
    def plan(self, module, x, y):
        return replace(super().plan(module, x, y), requested=0.3)


@dataclass(frozen=True)
class Wide(Uniform):
    def plan(self, module, x, y):
        return changed_layers(
            super().plan(module, x, y), lambda layer: LayerPlan(layer.site.long(), layer.pairs)
        )


@dataclass(frozen=True)
class HalfANetwork(Uniform):
    def plan(self, module, x, y):
        plan = super().plan(module, x, y)
        first = next(iter(plan.layers))
        return replace(plan, layers={first: plan.layers[first]})


@dataclass(frozen=True)
class TakesBusyNeighbours(Uniform):
    """Every wanted product gets the first neighbour of its qubit, whoever else has it."""

    def plan(self, module, x, y):
        plan, placement = super().plan(module, x, y), module.placement
        first = torch.tensor([sites[0] for sites in placement.injections], dtype=torch.int16)

        def busy(layer):
            plain = placement.plain_sites(layer.site.shape).long()
            return LayerPlan(first[plain], torch.ones_like(layer.pairs))

        return changed_layers(plan, busy) if self.fraction == 1 else plan


@dataclass(frozen=True)
class MovesProducts(Uniform):
    """Rotates the products over the compute qubits."""

    def plan(self, module, x, y):
        plan, width = super().plan(module, x, y), len(module.placement.compute)

        def moved(layer):
            site = torch.where(layer.pairs == 0, (layer.site + 1) % width, layer.site)
            return LayerPlan(site.to(torch.int16), layer.pairs)

        return changed_layers(plan, moved)


@dataclass(frozen=True)
class TooManyPairs(Uniform):
    pairs: int = 9


@dataclass(frozen=True)
class IgnoresMaxPairs(Uniform):
    pairs: int = 3
    max_pairs: int = 8


class Unseeded(Uniform):
    def plan(self, module, x, y):
        plan = super().plan(module, x, y)
        sign = 1 - 2 * torch.randint(2, (1,)).item()
        return changed_layers(plan, lambda p: LayerPlan(p.site, (sign * p.pairs).to(torch.int8)))


class SeedsEverybody(Uniform):
    def plan(self, module, x, y):
        torch.manual_seed(0)
        return super().plan(module, x, y)


class DependsOnItsPast(Uniform):
    calls = 0

    def plan(self, module, x, y):
        type(self).calls += 1
        return replace(super().plan(module, x, y), settings={"call": type(self).calls})


class ChangesWeights(Uniform):
    def plan(self, module, x, y):
        plan = super().plan(module, x, y)
        with torch.no_grad():
            next(module.parameters()).mul_(1.001)
        return plan


class InstallsItsPlan(Uniform):
    def plan(self, module, x, y):
        module.plan = super().plan(module, x, y)
        return module.plan


class LeavesEvalMode(Uniform):
    def plan(self, module, x, y):
        return super().plan(module.eval(), x, y)


class LeavesGradients(Uniform):
    def plan(self, module, x, y):
        nn.functional.cross_entropy(module(x), y).backward()
        return super().plan(module, x, y)


class NormalisesInputs(Uniform):
    def plan(self, module, x, y):
        return super().plan(module, x.sub_(x.mean()), y)


@dataclass(frozen=True)
class ClampsFraction(Uniform):
    def plan(self, module, x, y):
        fraction = min(max(self.fraction, 0.0), 1.0)
        fraction = 0.0 if fraction != fraction else fraction
        plan = Uniform(fraction).plan(module, x, y)
        return replace(plan, requested=self.fraction, strategy=self.name)


@dataclass(frozen=True)
class AssertsFraction(Uniform):
    def __post_init__(self):
        assert 0 <= self.fraction <= 1


class KeepsATuple(Uniform):
    def plan(self, module, x, y):
        return replace(super().plan(module, x, y), settings={"range": (0, 1)})


class ConvolutionsOnly(Uniform):
    def plan(self, module, x, y):
        if not any(len(shape) == 4 for shape in module.weight_shapes.values()):
            raise IndexError("list index out of range")
        return super().plan(module, x, y)


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (Nameless, "has_a_name_and_takes_a_fraction", "name ''"),
        (NoFraction, "has_a_name_and_takes_a_fraction", "'fraction'"),
        (Wide, "plan_is_complete", "torch.int64"),
        (HalfANetwork, "plan_is_complete", "shapes"),
        (IgnoresFraction, "plan_obeys_the_fraction", "at most 0"),
        (NeverInjects, "plan_obeys_the_fraction", "no weight under crosstalk"),
        (ForgetsWhatWasAsked, "plan_obeys_the_fraction", "0.3 was requested"),
        (TakesBusyNeighbours, "injection_comes_from_idle_neighbours", "one time step"),
        (MovesProducts, "injection_comes_from_idle_neighbours", "its place under order='plain'"),
        (TooManyPairs, "plan_obeys_the_most_pairs", "up to 9 pairs"),
        (IgnoresMaxPairs, "plan_obeys_the_most_pairs", "at most 2"),
        (Unseeded, "same_seed_same_plan", "global generator of torch"),
        (SeedsEverybody, "same_seed_same_plan", "global generator of torch"),
        (DependsOnItsPast, "same_seed_same_plan", "settings"),
        (ChangesWeights, "leaves_module_and_data_as_they_were", "weight"),
        (InstallsItsPlan, "leaves_module_and_data_as_they_were", "plan"),
        (LeavesEvalMode, "leaves_module_and_data_as_they_were", "mode of"),
        (LeavesGradients, "leaves_module_and_data_as_they_were", "gradient of"),
        (NormalisesInputs, "leaves_module_and_data_as_they_were", "x"),
        (ClampsFraction, "refuses_fractions_that_are_none", "fraction=-0.1 is accepted"),
        (AssertsFraction, "refuses_fractions_that_are_none", "AssertionError"),
        (KeepsATuple, "plan_saves_and_loads_equal", "settings"),
        (ConvolutionsOnly, "plans_every_kind_of_layer", "IndexError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_is_found_and_named(faulty, check, words):
    with pytest.raises(AssertionError) as caught:
        check_strategy(faulty)
    message = str(caught.value)
    assert f"strategy '{faulty.__name__}', check {check}: found" in message
    assert words in message
    assert "; expected" in message


def test_strategy_under_another_name_is_found(monkeypatch):
    monkeypatch.setattr(Uniform, "name", "unifrom")
    with pytest.raises(AssertionError, match="expected 'uniform', under which it is registered"):
        check_strategy("uniform")


def test_unknown_names_are_errors_of_their_own():
    with pytest.raises(UnknownNameError, match="uniform"):
        check_strategy("unifrom")
    with pytest.raises(UnknownNameError, match="strategy"):
        checks_for("stratagem")


def test_import_needs_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; import qnad_art.testing"
    subprocess.run([sys.executable, "-c", code], check=True)
