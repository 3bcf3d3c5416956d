"""Conformance suite for crosstalk strategies."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qnad_art.benchmark.suites.sources import classifier_of
from qnad_art.crosstalk import Strategy
from qnad_art.datasets.dataset import Dataset
from qnad_art.defence import QNAD
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.device.profile import DEFAULT_DEVICE, DeviceProfile
from qnad_art.network.conversion import convert
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.placement.placement import Order
from qnad_art.placement.plan import CrosstalkPlan
from qnad_art.testing.checks import (
    Suite,
    expect,
    expect_name,
    expect_refusal,
    expect_type,
    expect_unchanged,
    name_of,
    registered,
)
from qnad_art.testing.specimens import built, global_randomness, random_tensor

IMAGES = 24
CLASSES = 3
FRACTION = 0.25
FEW_PAIRS = 2


@dataclass(frozen=True)
class _Case:
    """A strategy's class (or factory), its settings, and the device."""

    factory: Callable[..., Strategy]
    settings: Mapping[str, Any]
    device: DeviceProfile
    known_as: str | None

    @property
    def takes(self) -> set[str]:
        return set(inspect.signature(self.factory).parameters)

    def strategy(self, **settings: Any) -> Strategy:
        return self.factory(**{"fraction": FRACTION, **self.settings, **settings})

    def module(
        self, network: str = "convolutional", *, order: Order = "stretched", max_pairs: int = 8
    ) -> QuantumExecutedModule:
        shape, layers = _NETWORKS[network]
        return convert(
            built(layers()),
            random_tensor(IMAGES, *shape),
            device=self.device,
            order=order,
            max_pairs=max_pairs,
            seed=0,
        )

    def data(self, network: str = "convolutional") -> tuple[Tensor, Tensor]:
        return random_tensor(IMAGES, *_NETWORKS[network][0]), torch.arange(IMAGES) % CLASSES

    def plan(self, **settings: Any) -> CrosstalkPlan:
        return self.strategy(**settings).plan(self.module(), *self.data())


def _network(first: nn.Module, features: int, *, bias: bool = True) -> nn.Module:
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(features, CLASSES, bias=bias))


_NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "convolutional": ((1, 6, 6), lambda: _network(nn.Conv2d(1, 4, 3, padding=1), 144)),
    "linear": ((20,), lambda: _network(nn.Linear(20, 12), 12)),
    "grouped, one-dimensional": (
        (4, 6),
        lambda: _network(nn.Conv1d(4, 6, 3, groups=2), 24, bias=False),
    ),
}


def has_a_name_and_takes_a_fraction(case: _Case) -> None:
    """The strategy has a name, which plans show, and takes ``fraction``, which QNAD passes."""
    taken = inspect.signature(case.factory).parameters.values()
    expect(
        "fraction" in case.takes or any(p.kind is p.VAR_KEYWORD for p in taken),
        found=f"the settings {sorted(case.takes)}",
        expected="a setting 'fraction', the fraction of the weights to put under crosstalk",
    )
    name = getattr(case.strategy(), "name", None)
    expect(isinstance(name, str) and name, found=f"name {name!r}", expected="a name (str)")
    expect_name(str(name), case.known_as)


def plan_is_complete(case: _Case) -> None:
    """The plan is valid for device, placement and network, and records how it was made."""
    module, strategy = case.module(), case.strategy()
    _expect_complete(strategy.plan(module, *case.data()), module, strategy)


def _expect_complete(
    plan: CrosstalkPlan, module: QuantumExecutedModule, strategy: Strategy
) -> None:
    expect_type(plan, CrosstalkPlan)
    plan.check()
    plan.check_device(module.device_profile)
    for what, found, expected in (
        ("sites", plan.sites, module.placement.sites),
        ("shapes", {n: tuple(p.pairs.shape) for n, p in plan.layers.items()}, module.weight_shapes),
        ("types", {p.site.dtype for p in plan.layers.values()}, {torch.int16}),
        ("types", {p.pairs.dtype for p in plan.layers.values()}, {torch.int8}),
        ("strategy", plan.strategy, strategy.name),
    ):
        expect(found == expected, found=f"{what} {found}", expected=str(expected))


def plan_obeys_the_fraction(case: _Case) -> None:
    """The plan has at most the requested fraction (rounded per layer), 0 if that is 0."""
    for fraction in (0.0, FRACTION, 1.0):
        plan = case.plan(fraction=fraction)
        most = fraction * plan.weights + (len(plan.layers) / 2 if fraction else 0)
        expect(
            plan.injected <= most,
            found=f"{plan.injected} of {plan.weights} weights under crosstalk",
            expected=f"at most {most:g} for fraction={fraction}",
        )
        expect(
            plan.injected or fraction != FRACTION,
            found=f"no weight under crosstalk for fraction={fraction}",
            expected="some; if the strategy needs longer to find them, give the check its settings",
        )
        expect(
            plan.requested == fraction,
            found=f"a plan that says {plan.requested} was requested",
            expected=f"fraction={fraction}",
        )


def injection_comes_from_idle_neighbours(case: _Case) -> None:
    """In plain order, no qubit has two tasks in one time step (Algorithm 1, line 3)."""
    module = case.module(order="plain")
    plan = case.strategy(fraction=1.0).plan(module, *case.data())
    compute, width = module.placement.compute, len(module.placement.compute)
    for name, layer in plan.layers.items():
        for row, pairs in zip(layer.site.flatten(1), layer.pairs.flatten(1), strict=True):
            sites = [plan.sites[index] for index in row.tolist()]
            for start in range(0, len(sites), width):
                step = range(start, min(start + width, len(sites)))
                for slot in step:
                    expect(
                        sites[slot].qubit == compute[slot - start],
                        found=f"layer {name}: product {slot} of a sum on qubit {sites[slot].qubit}",
                        expected=f"{compute[slot - start]}, its place under order='plain'",
                    )
                # A site next to another product lists that one's neighbour, which serves no other.
                own = {j for j in step if pairs[j] and sites[j].next_to is None}
                used = [q for j in step for q in sites[j].qubits[: 3 if j in own else 1]]
                expect(
                    len(used) == len(set(used)),
                    found=f"layer {name}: one time step uses the qubits {used}",
                    expected="each at most once: a neighbour must be idle to inject crosstalk",
                )


def plan_obeys_the_most_pairs(case: _Case) -> None:
    """Pair counts fit the response table, and ``max_pairs`` if the strategy takes it."""
    limited = "max_pairs" in case.takes
    for table, settings in ((8, {}), (FEW_PAIRS, {"max_pairs": FEW_PAIRS})):
        if settings and not limited:
            continue
        module = case.module(max_pairs=table)
        plan = case.strategy(**settings).plan(module, *case.data())
        largest = max(int(layer.pairs.int().abs().max()) for layer in plan.layers.values())
        expect(largest <= table, found=f"up to {largest} pairs", expected=f"at most {table}")


def same_seed_same_plan(case: _Case) -> None:
    """Equal seeds give equal plans; the global generators are not used. Instances are reusable."""
    strategy = case.strategy()
    plans = []
    for seed, made in ((0, strategy), (1, strategy), (2, case.strategy())):
        module, data = case.module(), case.data()
        with global_randomness(seed):
            plans.append(made.plan(module, *data))
    for plan in plans[1:]:
        _expect_equal(plan, plans[0], "the plan of the first call, with the same settings")


def _expect_equal(plan: CrosstalkPlan, other: CrosstalkPlan, expected: str) -> None:
    for name in ("device", "device_hash", "sites", "strategy", "requested", "settings"):
        found = getattr(plan, name)
        expect(found == getattr(other, name), found=f"{name} {found!r}", expected=expected)
    expect(
        list(plan.layers) == list(other.layers), found=f"layers {[*plan.layers]}", expected=expected
    )
    for name, layer in plan.layers.items():
        for part in ("site", "pairs"):
            here, there = getattr(layer, part), getattr(other.layers[name], part)
            differing = int((here != there).sum()) if here.shape == there.shape else here.numel()
            expect(
                not differing,
                found=f"{part} of layer {name}: {differing} differ",
                expected=expected,
            )


def leaves_module_and_data_as_they_were(case: _Case) -> None:
    """Planning leaves the module (weights, plan, modes, gradients) and the data unchanged."""
    module, (x, y) = case.module().train(), case.data()

    def state() -> dict[str, object]:
        found: dict[str, object] = {"x": x.clone(), "y": y.clone(), "plan": id(module.plan)}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            found[name] = tensor.detach().clone()
            found[f"gradient of {name}"] = tensor.requires_grad, tensor.grad is not None
        found |= {f"mode of {name}": part.training for name, part in module.named_modules()}
        engines = {f"engine of {n}": layer.engine is None for n, layer in module.layers.items()}
        return {**found, **engines}

    before = state()
    case.strategy().plan(module, x, y)
    wanted = "module and data as before: work on a copy (copy.deepcopy(module))"
    expect_unchanged(before, state(), by="planning", expected=wanted)


def refuses_fractions_that_are_none(case: _Case) -> None:
    """Invalid fractions are refused in the constructor or in ``plan``."""
    for fraction in (-0.1, 1.5, math.nan):
        with expect_refusal(f"fraction={fraction}"):
            case.plan(fraction=fraction)


def plan_saves_and_loads_equal(case: _Case) -> None:
    """A plan that is saved and loaded is equal to the original."""
    plan = case.plan()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.safetensors"
        plan.save(path)
        loaded = CrosstalkPlan.load(path)
    _expect_equal(loaded, plan, "the plan that was saved; its settings must be plain JSON")


def plans_every_kind_of_layer(case: _Case) -> None:
    """Plans cover (grouped) convolutions and linear layers, with and without bias, and run."""
    for network in _NETWORKS:
        module, data, strategy = case.module(network), case.data(network), case.strategy()
        plan = strategy.plan(module, *data)
        _expect_complete(plan, module, strategy)
        module.plan = plan
        finite = bool(torch.isfinite(module(data[0])).all())
        expect(finite, found=f"NaN or infinite logits of the {network} network", expected="numbers")


def goes_through_the_defence(case: _Case) -> None:
    """:class:`qnad_art.QNAD` fits the strategy and runs its plan."""
    x, y = (tensor.numpy() for tensor in case.data())
    images = Dataset("random", x, y, tuple(map(str, range(CLASSES))), "Random pixels.")
    classifier = classifier_of(built(_NETWORKS["convolutional"][1]()), images)
    defence = QNAD(classifier, case.device, strategy=case.strategy(), seed=0)
    defence.fit(x, y)
    hardened = defence(x, classifier)
    injected = hardened.plan.injected
    expect(injected, found=f"{injected} weights under crosstalk", expected="some")
    outputs = hardened.predict(x)
    expect(outputs.shape == (IMAGES, CLASSES), found=f"outputs {outputs.shape}", expected="logits")


SUITE: Suite[_Case] = Suite("strategy")


@SUITE.run_on
def check_strategy(
    strategy: str | Callable[..., Strategy],
    *,
    device: DeviceLike = DEFAULT_DEVICE,
    **settings: Any,
) -> _Case:
    """Check a crosstalk strategy on small networks.

    Args:
        strategy: registered name, class, or factory that takes settings as keywords.
        device: name or profile of the device on which the networks run.
        **settings: settings of the strategy, for example ``epochs=1`` to make it fast.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    factory = registered("strategy", strategy)
    return _Case(factory, settings, load_device(device), name_of(strategy))
