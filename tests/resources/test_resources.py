"""Costs of an inference: by hand, and by brute force over every product of every position."""

from __future__ import annotations

import json

import pytest
import torch
from art_fixtures import hardened
from torch import nn
from typer.testing import CliRunner

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.product import Site
from qnad_art.circuits.words import word
from qnad_art.cli import app
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.models.architectures import build_model
from qnad_art.models.weights import save_weights
from qnad_art.network.conversion import convert
from qnad_art.placement.placement import device_placement
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan, inherent_plan
from qnad_art.placement.time_steps import time_steps
from qnad_art.pretrained import load_pretrained
from qnad_art.resources.inference_cost import REPETITION_DELAY, inference_resources, random_plan

NS, US = 1e-9, 1e-6


@pytest.fixture
def line():
    """0 – 1 – 2 : products run on 0 and 2, crosstalk comes from 1."""
    qubits = [
        Qubit(sx_duration=sx * NS, x_duration=x * NS, readout_duration=readout * US)
        for sx, x, readout in ((30, 40, 1), (35, 50, 3), (50, 60, 2))
    ]
    edges = [
        Edge(control=0, target=1, duration=300 * NS),
        Edge(control=2, target=1, duration=400 * NS),
    ]
    return DeviceProfile(
        name="line",
        two_qubit_gate="cx",
        qubits=tuple(qubits),
        edges=tuple(edges),
        crosstalk_model="paper",
    )


@pytest.fixture
def layer():
    """Three weights for each of two outputs: products 0 and 2 on qubit 0, product 1 on qubit 2."""
    return nn.Sequential(nn.Linear(3, 2))


def plan_of(device, site, pairs):
    sites = device_placement(device).sites
    index = {s: i for i, s in enumerate(sites)}
    layer = LayerPlan(
        torch.tensor([[index[s] for s in row] for row in site], dtype=torch.int16),
        torch.tensor(pairs, dtype=torch.int8),
    )
    return CrosstalkPlan(device.name, device.hash, sites, {"0": layer})


class TestByHand:
    def test_two_qubits_side_by_side(self, line, layer):
        found = inference_resources(layer, (3,), device=line, shots=100, readout="raw")
        (row,) = found.layers
        assert (row.products, row.circuits, row.runs) == (6, 4, 400)
        assert (row.one_qubit_gates, row.two_qubit_gates) == (18, 0)
        first = 3 * 50 * NS + 2 * US + 250 * US
        second = 3 * 30 * NS + 1 * US + 250 * US
        assert row.seconds == pytest.approx(2 * 100 * (first + second), rel=1e-12)
        assert found.side_by_side == 2
        assert found.crosstalk == 0
        assert found.readout_known

    def test_twirled_readout_adds_an_x_to_every_other_shot(self, line, layer):
        raw, twirled = (
            inference_resources(layer, (3,), device=line, shots=100, readout=readout).total
            for readout in ("raw", "twirled")
        )
        # Qubit 2 is the slower one of the first step, with its x and without.
        assert twirled.seconds - raw.seconds == pytest.approx(2 * 100 * (60 + 40) / 2 * NS)
        assert twirled.one_qubit_gates - raw.one_qubit_gates == 6 / 2

    def test_crosstalk_makes_circuits_longer_and_needs_steps(self, line, layer):
        plain, zero, two = Site(0), Site(0, 1), Site(2, 1)
        plan = plan_of(
            line,
            [[zero, two, plain], [plain, Site(2), plain]],
            [[-2, 1, 0], [0, 0, 0]],
        )
        found = inference_resources(
            layer, (3,), device=line, shots=10, plan=plan, readout="raw", repetition_delay=0.0
        )
        (row,) = found.layers
        # Output 0: its two injections share qubit 1, so two steps, the last product in the second.
        injected = 3 * 30 + 2 * 2 * 300 + 2 * 50, 3 * 50 + 2 * 400
        steps = (injected[0] * NS + 1 * US, injected[1] * NS + 2 * US)
        untouched = (3 * 50 * NS + 2 * US, 3 * 30 * NS + 1 * US)
        assert row.circuits == 4
        assert row.seconds == pytest.approx(10 * (sum(steps) + sum(untouched)), rel=1e-12)
        assert row.two_qubit_gates == plan.added_gates() == 6
        assert row.one_qubit_gates == 18 + 2
        assert found.crosstalk == pytest.approx(2 / 6)

    def test_spectators_take_the_time_of_the_gate_beside_them(self, line, layer):
        spectator = Site(0, 1, 2)
        plan = plan_of(line, [[spectator, Site(2), Site(0)], [Site(0)] * 3], [[3, 0, 0], [0] * 3])
        found = inference_resources(
            layer, (3,), device=line, shots=1, plan=plan, readout="raw", repetition_delay=0.0
        )
        # The pair on (2, 1) occupies qubit 2, whose product comes later, with product 2.
        steps = (3 * 30 + 6 * 400) * NS + 1 * US, 3 * 50 * NS + 2 * US
        assert found.layers[0].circuits == 2 + 3
        alone = 3 * (3 * 30 * NS + 1 * US)
        assert found.total.seconds == pytest.approx(sum(steps) + alone, rel=1e-12)

    def test_padding_is_not_executed(self):
        """3×3 kernels at the four corners of 2×2: four products, on four different qubits."""
        network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))
        found = inference_resources(network, (1, 2, 2), device=load_device("ideal"), shots=1)
        assert (found.total.products, found.total.circuits) == (16, 4)
        assert found.total.seconds == pytest.approx(4 * REPETITION_DELAY)
        assert not found.readout_known

    def test_shares_of_the_shots_count_output_by_output(self, line, layer):
        module = convert(layer, torch.rand(4, 3), device=line, shots=100)
        even = inference_resources(module, (3,))
        module.network[0].shot_share = (0.5, 1.5)
        shared = inference_resources(module, (3,))
        assert even.shots == shared.shots == 100
        assert shared.total == even.total
        module.network[0].shot_share = (0.5, 1.0)
        fewer = inference_resources(module, (3,)).total
        assert fewer.runs == 2 * 50 + 2 * 100
        assert fewer.seconds == pytest.approx(0.75 * even.total.seconds, rel=1e-12)


def brute_force(module, x, plan, device, shots, delay):
    """(products, circuits, seconds) from single products, readout twirled."""
    placement = device_placement(device)
    products = circuits = 0
    seconds = 0.0
    for name, layer in module.layers.items():
        _, executed, _ = layer.windows(x[name])
        part = plan.layers[name]
        site, pairs = part.site.flatten(1), part.pairs.flatten(1)
        groups, _, positions = executed.shape[1:]
        for output in range(len(site)):
            group = output // (len(site) // groups)
            for position in range(positions):
                kept = executed[0, group, :, position].bool()
                if not kept.any():
                    continue
                row, counts = site[output, kept], pairs[output, kept]
                steps = time_steps(placement, row[None], counts[None])[0]
                products += len(row)
                for step in set(steps.tolist()):
                    here = [
                        (plan.sites[int(s)], int(p))
                        for s, p, t in zip(row, counts, steps, strict=True)
                        if t == step
                    ]
                    circuits += 1
                    halves = [
                        max(duration(device, s, p) + flip * device.qubits[s.qubit].x_duration
                            for s, p in here)
                        for flip in (0, 1)
                    ]  # fmt: skip
                    readout = max(device.qubits[s.qubit].readout_duration for s, _ in here)
                    seconds += shots * (sum(halves) / 2 + readout + delay)
    return products, circuits, seconds


def duration(device, site, pairs):
    sx, model = device.qubits[site.qubit].sx_duration, crosstalk_model(device)
    total = 3 * sx
    if model.timed:  # two sx, the block, and a window that is as long as a whole product
        own = pairs and site.next_to is None
        return total + 2 * sx + word(device, site, pairs, model=model).seconds if own else total
    if pairs:
        total += 2 * abs(pairs) * device.edge_of[site.gate(device)].duration
    if pairs < 0:
        total += 2 * device.qubits[site.neighbour].x_duration
    return total


@pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_nairobi[crosstalk=paper]", "ibm_torino"])
@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_sums_equal_those_of_single_products(name, fraction):
    device = load_device(name)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    plan = random_plan(network, device, fraction=fraction, pairs=2)
    found = inference_resources(network, (2, 4, 4), device=device, shots=7, plan=plan)
    module = convert(network, device="ideal", max_pairs=0)
    inputs = {"0": torch.zeros(1, 2, 4, 4), "3": torch.zeros(1, 16)}
    expected = brute_force(module, inputs, plan, device, 7, REPETITION_DELAY)
    total = found.total
    assert (total.products, total.circuits) == expected[:2]
    assert total.seconds == pytest.approx(expected[2], rel=1e-12)
    assert total.runs == 7 * total.circuits
    assert found.crosstalk == pytest.approx(fraction, abs=0.02)


def test_lenet_has_the_products_that_its_module_counts():
    network = build_model("lenet5").eval()
    found = inference_resources(network, (1, 28, 28), device=load_device("ibm_nairobi"))
    module = convert(network, device="ideal", max_pairs=0)
    expected = module.products(torch.zeros(1, 1, 28, 28))
    assert {row.name: row.products for row in found.layers} == expected
    assert found.total.products == 406_656
    assert found.total.circuits >= 406_656 / found.side_by_side


def test_layers_that_run_several_times_are_counted_so():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    device = load_device("ibm_nairobi")
    once = inference_resources(nn.Sequential(nn.Linear(4, 4)), (4,), device=device).total
    twice = inference_resources(Twice(), (4,), device=device).total
    tokens = inference_resources(nn.Sequential(nn.Linear(4, 4)), (3, 4), device=device).total
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert (tokens.products, tokens.circuits) == (3 * once.products, 3 * once.circuits)


def test_more_compute_qubits_take_less_time():
    network = build_model("lenet5").eval()
    nairobi, sherbrooke = (
        inference_resources(network, (1, 28, 28), device=load_device(name))
        for name in ("ibm_nairobi", "ibm_sherbrooke")
    )
    assert sherbrooke.side_by_side > 10 * nairobi.side_by_side
    assert sherbrooke.total.seconds < nairobi.total.seconds / 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shots": 0}, "shots is 0"),
        ({"shots": 2.5}, "shots is 2.5"),
        ({"readout": "loud"}, "readout 'loud'"),
        ({"repetition_delay": -1.0}, "repetition_delay"),
        ({"repetition_delay": float("nan")}, "repetition_delay"),
        ({"device": None}, "has no device"),
    ],
)
def test_bad_values_are_refused(settings, words, line, layer):
    with pytest.raises(InvalidInputError, match=words):
        inference_resources(layer, (3,), **{"device": line, **settings})


def test_plans_for_something_else_are_refused(line, layer):
    placement = device_placement(line)
    other = inherent_plan(line, placement, {"0": (2, 5)})
    with pytest.raises(InvalidInputError, match="another network"):
        inference_resources(layer, (3,), device=line, plan=other)
    with pytest.raises(InvalidInputError, match="made for line"):
        inference_resources(layer, (3,), device=load_device("ideal"), plan=other)
    for settings in ({"fraction": 1.5}, {"fraction": 0.5, "pairs": 0}):
        with pytest.raises(InvalidInputError):
            random_plan(layer, line, **settings)


def test_biases_that_the_plan_runs_as_products_are_counted(nairobi):
    module = convert(build_model("lenet5"), device=nairobi, max_pairs=0, bias="quantum")
    found = inference_resources(
        build_model("lenet5"), (1, 28, 28), device=nairobi, plan=module.plan
    )
    outputs = 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10
    assert sum(layer.products for layer in found.layers) == 406_656 + outputs
    assert found == inference_resources(module, (1, 28, 28))


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["resources", *map(str, arguments)])

    def figures(self, *arguments):
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def test_table_fits_a_terminal(self):
        result = CliRunner().invoke(app, ["resources", "lenet5"], env={"COLUMNS": "80"})
        assert result.exit_code == 0, result.output
        for text in ("406,656", "classifier.5", "1,024 shots", "5 products", "250 µs", " h"):
            assert text in " ".join(result.output.split())
        assert "…" not in result.output

    def test_json_holds_layers_and_total(self):
        found = self.figures("lenet5", "--shots", 10, "--repetition-delay", 100)
        assert found["total"]["runs"] == 10 * found["total"]["circuits"]
        assert found["repetition_delay"] == pytest.approx(1e-4)
        assert found["layers"][0]["name"] == "features.0"
        assert found["crosstalk"] == 0

    def test_crosstalk_by_fraction_and_pairs(self):
        device = "ibm_nairobi[crosstalk=paper]"  # in time, a critical weight gets waits first
        chosen = ("--device", device, "--fraction", 0.1, "--pairs", 2)
        found = self.figures("lenet5", "--shots", 10, *chosen)
        assert found["crosstalk"] == pytest.approx(0.1, abs=1e-3)
        # Every product of a chosen weight has two pairs of two gates.
        assert found["total"]["two_qubit_gates"] == pytest.approx(0.1 * 406_656 * 4, rel=0.1)

    def test_hardened_folder_brings_device_plan_and_shots(self, tmp_path):
        from qnad_art import pretrained

        folder = pretrained.__path__[0] + "/lenet5-mnist"
        found = self.figures(folder)
        assert found["device"] == "ibm_nairobi"
        assert found["crosstalk"] == pytest.approx(load_pretrained().card["crosstalk_achieved"])
        assert found["readout_known"]
        weights = tmp_path / "weights.safetensors"
        save_weights(build_model("lenet5"), weights)
        again = self.figures(weights, "--plan", folder, "--shots", found["shots"])
        assert again["total"]["two_qubit_gates"] == found["total"]["two_qubit_gates"]
        assert self.figures(folder, "--device", "ibm_mumbai")["crosstalk"] == 0
        elsewhere = self.run(folder, "--device", "ibm_mumbai")
        assert "The folder's crosstalk is for ibm_nairobi and is not counted" in elsewhere.stderr

    def test_a_folder_has_its_own_readout(self, tmp_path):
        classifier = hardened(readout="raw")
        classifier.save("raw", str(tmp_path))
        own = self.figures(tmp_path / "raw")
        assert own == self.figures(tmp_path / "raw", "--readout", "raw")
        assert own != self.figures(tmp_path / "raw", "--readout", "twirled")

    def test_errors_say_what_to_do(self):
        assert isinstance(self.run("lenet6").exception, UnknownNameError)
        both = self.run("lenet5", "--plan", "x", "--fraction", 0.1)
        assert "give one of them" in str(both.exception)
        assert "twirled" in str(self.run("lenet5", "--readout", "loud").exception)
        assert "of --fraction; give both" in str(self.run("lenet5", "--pairs", 3).exception)
        assert "is a network already" in str(self.run("lenet5", "--model", "alexnet").exception)

    def test_narrow_terminals_break_lines_and_cut_nothing(self):
        shown = CliRunner().invoke(
            app, ["resources", "lenet5", "--fraction", "0.3"], env={"COLUMNS": "60"}
        )
        assert shown.exit_code == 0, shown.output
        assert "…" not in shown.output
