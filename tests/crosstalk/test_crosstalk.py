"""Criticality, plans and strategies: exact selection, honest counts, sound files."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from qnad_art.crosstalk import build_strategy
from qnad_art.crosstalk.criticality import select_critical, weight_gradients
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, UnknownNameError
from qnad_art.files.atomic import write_json
from qnad_art.network.conversion import convert
from qnad_art.placement.plan import CrosstalkPlan, LayerPlan
from qnad_art.plugins.discovery import plugin_names


@pytest.fixture
def problem(small_net, random_tensor):
    """Function: converted network, inputs, labels."""

    def make(**settings):
        x = random_tensor(7, 1, 4, 4)
        module = convert(small_net(), x, **{"seed": 1, **settings})
        return module, x, torch.arange(7) % 3

    return make


@pytest.fixture(params=["ibm_nairobi", "ibm_nairobi[crosstalk=paper]"])
def wide(request, random_tensor):
    """A layer with sums long enough for the asymptotic share of neighbours; inputs, labels."""
    plain = nn.Linear(200, 20).double()
    x = random_tensor(5, 200)
    return convert(plain, x, device=request.param), x, torch.arange(5)


def own_counts(plan, layer):
    """Signed counts of a layer's words, without those that other products meet."""
    return torch.where(plan.words(layer), layer.pairs, 0)


SCORES = {"a": torch.tensor([[0.1, -9.0], [3.0, 0.0]]), "b": torch.tensor([[-5.0, 4.0, 0.2]])}


class TestSelection:
    def test_global_takes_the_largest_of_all(self):
        chosen = select_critical(SCORES, 3 / 7)
        assert chosen["a"].tolist() == [[False, True], [False, False]]
        assert chosen["b"].tolist() == [[True, True, False]]

    def test_layer_takes_the_share_of_each(self):
        chosen = select_critical(SCORES, 0.5, scope="layer")
        assert chosen["a"].tolist() == [[False, True], [True, False]]
        assert chosen["b"].sum() == 2

    @pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.9995, 1.0])
    @pytest.mark.parametrize("scope", ["global", "layer"])
    def test_count_is_exact_and_no_other_is_larger(self, fraction, scope, random_tensor):
        scores = {"a": random_tensor(30, 40), "b": 3 * random_tensor(7, 5, 3, 3, seed=1)}
        chosen = select_critical(scores, fraction, scope=scope)
        groups = [scores] if scope == "global" else [{name: scores[name]} for name in scores]
        for group in groups:
            values = torch.cat([scores[name].flatten().abs() for name in group])
            mask = torch.cat([chosen[name].flatten() for name in group])
            assert mask.sum() == round(fraction * len(values))
            if 0 < mask.sum() < len(values):
                assert values[mask].min() >= values[~mask].max()

    def test_ties_do_not_change_the_count(self):
        assert select_critical({"a": torch.zeros(10, 10)}, 0.37)["a"].sum() == 37

    @pytest.mark.parametrize("settings", [(-0.1, "global"), (1.1, "global"), (0.5, "net")])
    def test_bad_settings(self, settings):
        with pytest.raises(InvalidInputError):
            select_critical(SCORES, settings[0], scope=settings[1])


class TestGradients:
    @pytest.mark.parametrize("gain", ["raw", "calibrated"])
    def test_are_finite_differences_of_the_loss(self, problem, gain, random_crosstalk):
        module, x, y = problem(gain=gain)
        random_crosstalk(module)
        gradients = weight_gradients(module, x, y)
        for name, layer in module.layers.items():
            for index in (0, 5, int(layer.weight.abs().argmax())):
                losses = []
                for step in (1e-6, -1e-6):
                    with torch.no_grad():
                        layer.weight.view(-1)[index] += step
                        losses.append(float(functional.cross_entropy(module(x), y)))
                        layer.weight.view(-1)[index] -= step
                numeric = (losses[0] - losses[1]) / 2e-6
                found = float(gradients[name].view(-1)[index])
                assert found == pytest.approx(numeric, rel=1e-4, abs=1e-8)

    def test_do_not_depend_on_the_batch_size(self, problem):
        module, x, y = problem()
        whole = weight_gradients(module, x, y)
        for batch_size in (1, 3, 7):
            parts = weight_gradients(module, x, y, batch_size=batch_size)
            for name in whole:
                torch.testing.assert_close(parts[name], whole[name], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("training", [True, False])
    def test_leave_the_module_as_it_was(self, problem, training):
        module, x, y = problem()
        module.train(training)
        module.network[0].weight.requires_grad_(False)
        state = {name: value.clone() for name, value in module.state_dict().items()}
        weight_gradients(module, x, y)
        assert module.training is training
        required = {name: p.requires_grad for name, p in module.named_parameters()}
        assert required.pop("network.0.weight") is False
        assert all(required.values())
        assert all(p.grad is None for p in module.parameters())
        assert all(torch.equal(state[name], v) for name, v in module.state_dict().items())

    def test_leave_the_module_as_it_was_after_an_error(self, problem):
        module, x, y = problem()
        module.requires_grad_(False).train()
        with pytest.raises(IndexError):
            weight_gradients(module, x, y + 5)
        assert module.training
        assert not any(p.requires_grad for p in module.parameters())

    def test_leave_the_training_flag_of_each_part(self, problem):
        module, x, y = problem()
        module.train()
        module.network[1].eval()
        weight_gradients(module, x, y)
        assert module.network[0].training
        assert not module.network[1].training

    def test_unused_layers_have_zero_gradient(self, random_tensor):
        class Auxiliary(nn.Module):
            def __init__(self):
                super().__init__()
                self.main, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

            def forward(self, x):
                return self.main(x)

        x = random_tensor(4, 3)
        gradients = weight_gradients(convert(Auxiliary().double(), x), x, torch.arange(4) % 2)
        assert gradients["main"].abs().sum() > 0
        assert (gradients["unused"] == 0).all()

    def test_bad_labels(self, problem):
        module, x, y = problem()
        for inputs, labels in ((x, y[:3]), (x[:0], y[:0])):
            with pytest.raises(InvalidInputError, match="labels"):
                weight_gradients(module, inputs, labels)


class TestStrategies:
    @pytest.mark.parametrize("name", ["uniform", "random"])
    @pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.8])
    @pytest.mark.parametrize("scope", ["global", "layer"])
    def test_achieved_is_counted_and_never_more_than_requested(self, wide, name, fraction, scope):
        module, x, y = wide
        plan = build_strategy(name, fraction=fraction, scope=scope, pairs=2).plan(module, x, y)
        layer = plan.layers[""]
        pairs = own_counts(plan, layer)
        assert plan.weights == 4000
        assert plan.requested == fraction
        assert plan.achieved == int((pairs != 0).sum()) / 4000 <= fraction
        assert set(pairs.unique().tolist()) <= {-2, 0, 2}
        gates = torch.tensor([2 * (site.kind == "pairs") for site in plan.sites])
        assert plan.added_gates() == int((gates[layer.site.long()] * pairs.abs()).sum())
        assert plan.histogram()[""] == {
            count: int((pairs == count).sum()) for count in pairs.unique().tolist()
        }
        module.plan = plan
        assert module(x).isfinite().all()

    def test_uniform_injects_where_the_gradient_is_largest(self, wide):
        module, x, y = wide
        gradients = weight_gradients(module, x, y)
        plan = build_strategy("uniform", fraction=0.1).plan(module, x, y)
        critical = select_critical(gradients, 0.1)[""]
        assert torch.equal(plan.words(plan.layers[""]), critical)

    def test_added_seconds_are_those_of_gates_and_of_the_neighbours_flips(
        self, problem, paper_nairobi
    ):
        nairobi = paper_nairobi
        module, x, y = problem(device=nairobi)
        plan = build_strategy("random", fraction=0.5, pairs=3).plan(module, x, y)
        expected = 0.0
        for layer in plan.layers.values():
            for site, pairs in zip(layer.site.flatten(), layer.pairs.flatten(), strict=True):
                if pairs:
                    gate = plan.sites[int(site)].gate(nairobi)
                    expected += 2 * abs(int(pairs)) * nairobi.edge_of[gate].duration
                    neighbour = nairobi.qubits[plan.sites[int(site)].neighbour]
                    expected += 2 * neighbour.x_duration * bool(pairs < 0)
        assert plan.added_seconds(nairobi) == pytest.approx(expected)
        with pytest.raises(InvalidInputError, match="made for"):
            plan.added_seconds(nairobi.ideal())

    def test_random_is_seeded_and_looks_at_no_data(self, wide):
        module, x, y = wide

        def injected(seed, inputs=x):
            strategy = build_strategy("random", fraction=0.2, seed=seed)
            return strategy.plan(module, inputs, y).layers[""].pairs

        assert torch.equal(injected(1), injected(1, 0 * x))
        assert not torch.equal(injected(1), injected(2))
        state = torch.get_rng_state()
        injected(3)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("name", ["uniform", "random"])
    def test_alternating_signs_balance_in_every_sum(self, wide, name):
        module, x, y = wide
        plan = build_strategy(name, fraction=0.3, pairs=3).plan(module, x, y)
        assert (own_counts(plan, plan.layers[""]).sum(1).abs() <= 3).all()
        fixed = build_strategy(name, fraction=0.3, pairs=-3, polarity="fixed").plan(module, x, y)
        assert set(fixed.layers[""].pairs.unique().tolist()) == {-3, 0}
        assert fixed.injected == plan.injected

    def test_fixed_polarity_shifts_add_up_and_alternating_ones_cancel(self, wide):
        module, x, y = wide
        same_sign, shift = x.abs(), {}
        with torch.no_grad():
            plain = module(same_sign)
            for polarity in ("fixed", "alternating"):
                strategy = build_strategy("random", fraction=0.4, pairs=1, polarity=polarity)
                module.plan = strategy.plan(module, x, y)
                shift[polarity] = float((module(same_sign) - plain).abs().mean())
        assert shift["fixed"] > 4 * shift["alternating"]

    def test_unknown_names_are_refused_with_the_valid_ones(self):
        with pytest.raises(UnknownNameError, match=r"'unifrm'.*uniform"):
            build_strategy("unifrm")
        with pytest.raises(UnknownNameError, match=r"'fractoin'.*'fraction'"):
            build_strategy("uniform", fractoin=0.3)

    @pytest.mark.parametrize("name", sorted({"uniform", "random"}))
    @pytest.mark.parametrize(
        "settings",
        [{"pairs": 0}, {"pairs": 128}, {"pairs": 1.5}, {"pairs": True}, {"polarity": "up"}],
    )
    def test_bad_settings_are_refused(self, name, settings):
        with pytest.raises(InvalidInputError):
            build_strategy(name, **settings)

    def test_bad_fraction_and_too_many_pairs(self, problem):
        module, x, y = problem(max_pairs=2)
        with pytest.raises(InvalidInputError, match="fraction"):
            build_strategy("random", fraction=1.5).plan(module, x, y)
        plan = build_strategy("random", pairs=3).plan(module, x, y)
        with pytest.raises(InvalidInputError, match="max_pairs=3"):
            module.plan = plan

    def test_instances_are_passed_through(self):
        strategy = build_strategy("random")
        assert build_strategy(strategy) is strategy
        with pytest.raises(InvalidInputError, match="instance"):
            build_strategy(strategy, fraction=0.1)

    @pytest.mark.parametrize("name", ["uniform", "random"])
    def test_settings_are_recorded_and_rebuild_the_plan(self, wide, name):
        module, x, y = wide
        assert name in plugin_names("strategy")
        plan = build_strategy(name, fraction=0.2, pairs=2).plan(module, x, y)
        again = build_strategy(plan.strategy, **plan.settings).plan(module, x, y)
        assert torch.equal(again.layers[""].pairs, plan.layers[""].pairs)


class TestPlanFiles:
    @pytest.fixture
    def plan(self, problem):
        module, x, y = problem()
        return build_strategy("uniform", fraction=0.4, pairs=2).plan(module, x, y)

    def test_round_trip(self, plan, problem, tmp_path):
        plan.save(tmp_path / "plan")
        again = CrosstalkPlan.load(tmp_path / "plan")
        assert replace(again, layers={}) == replace(plan, layers={})
        assert list(again.layers) == list(plan.layers)
        module, x, _ = problem()
        module.plan = plan
        expected = module(x)
        module.remove_crosstalk()
        assert not torch.equal(module(x), expected)
        module.plan = again
        assert torch.equal(module(x), expected)

    def test_another_device_or_network_is_refused(self, plan, problem, small_net, random_tensor):
        for device in ("ideal", "ibm_lagos"):
            module, _, _ = problem(device=device)
            with pytest.raises(InvalidInputError, match="made for ibm_nairobi"):
                module.plan = plan
        other, _, _ = problem(compute=(0, 6))
        with pytest.raises(InvalidInputError, match="other sites"):
            other.plan = plan
        for network in (nn.Linear(16, 3), nn.Sequential(*small_net()[:3])):
            module = convert(network.double())
            with pytest.raises(InvalidInputError, match="another network"):
                module.plan = plan

    def test_refused_plan_leaves_the_old_one(self, plan, problem):
        module, x, _ = problem()
        module.plan = plan
        expected = module(x)
        with pytest.raises(QnadError):
            module.plan = replace(plan, device_hash="0" * 64)
        assert module.plan is plan
        assert torch.equal(module(x), expected)

    @pytest.mark.parametrize("keep", [0, 4, 100, -1])
    def test_truncated_file_is_refused(self, plan, tmp_path, keep):
        path = tmp_path / "plan"
        plan.save(path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ArtifactError, match="plan"):
            CrosstalkPlan.load(path)

    def test_every_flipped_bit_is_found(self, plan, tmp_path):
        path = tmp_path / "plan"
        plan.save(path)
        data = path.read_bytes()
        for position in range(0, len(data), 7):
            flipped = bytearray(data)
            flipped[position] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            with pytest.raises(ArtifactError):
                CrosstalkPlan.load(path)

    def test_foreign_files_are_refused(self, tmp_path):
        from safetensors.torch import save_file

        write_json(tmp_path / "json", {"a": 1})
        save_file({"a.site": torch.zeros(3)}, tmp_path / "tensors")
        (tmp_path / "pickle").write_bytes(b"\x80\x04N.")
        for name in ("json", "tensors", "pickle", "missing", ""):
            with pytest.raises(ArtifactError):
                CrosstalkPlan.load(tmp_path / name)

    @pytest.mark.parametrize("fault", ["site", "neighbour", "shape"])
    def test_plans_that_contradict_themselves_are_refused(self, plan, tmp_path, fault):
        layer = plan.layers["3"]
        site, pairs = layer.site.clone(), layer.pairs.clone()
        if fault == "site":
            site[0, 0] = len(plan.sites)
        elif fault == "neighbour":
            site[0, 0], pairs[0, 0] = 0, 1
        else:
            pairs = pairs[:1]
        replace(plan, layers={**plan.layers, "3": LayerPlan(site, pairs)}).save(tmp_path / "plan")
        with pytest.raises(ArtifactError, match="Layer '3'"):
            CrosstalkPlan.load(tmp_path / "plan")

    def test_contradictory_plans_are_refused_by_the_module_too(self, plan, problem):
        module, _, _ = problem()
        layer = plan.layers["3"]
        wrong = LayerPlan(torch.full_like(layer.site, len(plan.sites)), layer.pairs)
        with pytest.raises(QnadError):
            module.plan = replace(plan, layers={**plan.layers, "3": wrong})

    def test_pair_count_of_minus_128_is_refused(self, plan, problem):
        module, _, _ = problem()
        layer = plan.layers["3"]
        wrong = LayerPlan(torch.full_like(layer.site, 6), torch.full_like(layer.pairs, -128))
        with pytest.raises(InvalidInputError, match="128"):
            module.plan = replace(plan, layers={**plan.layers, "3": wrong})
