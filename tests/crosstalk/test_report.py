import io

import pytest
import torch
from rich.console import Console

from qnad_art import convert
from qnad_art.crosstalk import build_strategy
from qnad_art.crosstalk.report import LayerCrosstalk, PlanReport, plan_report
from qnad_art.device.catalogue import load_device
from qnad_art.errors import InvalidInputError

GATES = {"ibm_nairobi": 0, "ibm_nairobi[crosstalk=paper]": 2}
"""Gates of a unit where a critical weight is placed: a wait has none."""


@pytest.fixture(params=GATES)
def module(request):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.Linear(10, 4))
    return convert(network, torch.rand(8, 20), device=request.param, seed=0)


def gates(module):
    return GATES[module.device_profile.name]


def report(module, **settings):
    plan = build_strategy("random", scope="layer", **settings).plan(module, torch.rand(1), None)
    return plan, plan_report(plan, module.placement, module.device_profile)


def test_numbers_are_those_of_the_plan(module):
    plan, result = report(module, fraction=0.5, pairs=3)
    assert [row.name for row in result.layers] == list(plan.layers)
    assert result.achieved == plan.achieved == 0.5
    assert sum(row.gates for row in result.layers) == plan.added_gates() == 120 * 3 * gates(module)
    total = sum(row.seconds for row in result.layers)
    assert total == pytest.approx(plan.added_seconds(module.device_profile))
    for row in result.layers:
        assert sum(row.pairs.values()) == row.weights
        assert sum(n for pairs, n in row.pairs.items() if pairs) == row.injected == row.weights / 2


def test_steps_are_those_that_two_neighbours_need(module):
    """20 products on 5 qubits take 4 steps; with crosstalk on all of them, two can run a step."""
    assert [row.steps for row in report(module, fraction=0.0)[1].layers] == [4, 2]
    full = report(module, fraction=1.0)[1].layers
    assert [row.plain_steps for row in full] == [4, 2]
    assert full[0].steps >= 10
    assert full[1].steps >= 5


def test_prints_a_line_a_layer(module):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report(module, fraction=0.5, pairs=3)[1])
    text = console.export_text()
    assert "50.0% of the weights" in " ".join(text.split())
    assert ["0", "50.0%", "0", "0", "100", "0", str(100 * 3 * gates(module))] in [
        line.split()[:7] for line in text.splitlines()
    ]
    assert "×" in text


def test_says_how_many_weights_found_no_neighbour(module):
    x, y = torch.rand(6, 20), torch.arange(6) % 4
    plan = build_strategy("paper", fraction=1.0).plan(module, x, y)
    result = plan_report(plan, module.placement, module.device_profile)
    assert result.unserved == plan.unserved == 240 - plan.injected > 0
    assert all(row.steps == row.plain_steps for row in result.layers)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result)
    assert f"({plan.unserved} weights got none)" in " ".join(console.export_text().split())


def test_layers_of_millions_of_weights_fit_80_columns():
    pairs = dict.fromkeys((1, -2, 3, 8), 600_000)
    layer = LayerCrosstalk("features.40", 2_359_808, 2_359_808, pairs, 16_000_000, 7.5, 70, 20)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(PlanReport("ibm_nairobi", "tuned", 0.3, (layer,)))
    row = "features.40 100.0% 600,000 600,000 600,000 600,000 16,000,000 7,500 ×3.5"
    assert row.split() in [line.split() for line in console.export_text().splitlines()]


def test_another_device_is_refused(module):
    plan, _ = report(module, fraction=0.5)
    with pytest.raises(InvalidInputError, match="made for"):
        plan_report(plan, module.placement, load_device("ideal"))
