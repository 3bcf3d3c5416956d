"""Placement: no two products, injections or helpers ever share a qubit in a time step."""

import time

import numpy as np
import pytest
import torch

from qnad_art.circuits.product import Site
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile, Edge, Qubit
from qnad_art.errors import DeviceError, InvalidInputError
from qnad_art.placement.placement import Placement, device_placement


def random_mask(rows, fan_in, fraction, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((rows, fan_in), generator=generator) < fraction


def contrast(qubit):
    return 1 - qubit.p1_given_0 - qubit.p0_given_1


def injected(placement, sites):
    return torch.tensor([s.neighbour is not None for s in placement.sites])[sites.long()]


class TestComputeQubits:
    @pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_mumbai", "ibm_cusco", "ibm_torino"])
    def test_are_independent_with_an_idle_neighbour(self, name):
        device = load_device(name)
        compute = set(device_placement(device).compute)
        for qubit in compute:
            assert device.neighbours[qubit]
            assert not compute & set(device.neighbours[qubit])
        legible = {q for q, qubit in enumerate(device.qubits) if contrast(qubit) >= 0.5}
        assert compute <= legible
        for qubit in legible - compute:  # maximal: no more fits
            assert compute & set(device.neighbours[qubit]) or not device.neighbours[qubit]

    def test_qubits_that_read_nothing_run_products_only_if_asked_to(self, nairobi):
        blind = nairobi.qubits[0].model_copy(update={"p1_given_0": 0.5, "p0_given_1": 0.5})
        device = nairobi.model_copy(update={"qubits": (blind, *nairobi.qubits[1:])})
        assert 0 not in device_placement(device).compute
        assert device_placement(device, compute=(0, 4)).compute == (0, 4)
        dim = blind.model_copy(update={"p1_given_0": 0.25, "p0_given_1": 0.25})  # just enough
        least = nairobi.model_copy(update={"qubits": (dim, *nairobi.qubits[1:])})
        assert 0 in device_placement(least).compute
        none = nairobi.model_copy(update={"qubits": (blind,) * 7})
        with pytest.raises(DeviceError, match="readout contrast"):
            device_placement(none)

    def test_of_a_star_are_its_rays(self):
        """The centre would be independent too, alone."""
        edges = tuple(Edge(control=0, target=ray) for ray in range(1, 5))
        star = DeviceProfile(name="s", two_qubit_gate="cx", qubits=(Qubit(),) * 5, edges=edges)
        assert device_placement(star).compute == (1, 2, 3, 4)

    def test_nairobi_s_are_the_five_of_the_design(self, nairobi):
        assert device_placement(nairobi).compute == (0, 2, 3, 4, 6)

    def test_sites_are_plain_ones_then_every_one_and_two_hop(self, paper_nairobi):
        nairobi = paper_nairobi
        placement = device_placement(nairobi)
        assert [s.qubits for s in placement.sites[:5]] == [(0,), (2,), (3,), (4,), (6,)]
        direct = {(q, n) for q in placement.compute for n in nairobi.neighbours[q]}
        hops = {(q, n, p) for q, n in direct for p in nairobi.neighbours[n] if p != q}
        assert {s.qubits for s in placement.sites[5:]} == direct | hops
        assert len(placement.sites) == 5 + len(direct) + len(hops)

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"compute": (0, 1)}, r"0 is given twice or is coupled to \[1\]"),
            ({"compute": (4, 0, 0)}, r"distinct and uncoupled; 0 is given twice or .* to \[\]"),
            ({"compute": (0, 7)}, "compute qubit 7 is not one of 0 to 6"),
            ({"compute": (-1,)}, "not one of 0 to 6"),
            ({"order": "clever"}, "'clever' is not one of stretched, aware, plain"),
        ],
    )
    def test_bad_settings_are_refused(self, nairobi, settings, says):
        with pytest.raises(InvalidInputError, match=says):
            device_placement(nairobi, **settings)

    def test_device_without_couplings_is_refused(self):
        lonely = DeviceProfile(name="l", two_qubit_gate="cx", qubits=(Qubit(),) * 2, edges=())
        with pytest.raises(DeviceError, match="no qubit with an idle neighbour"):
            device_placement(lonely)


class TestPlainOrder:
    """Weight j of a row runs in slot j, so the time steps can be rebuilt from outside."""

    @pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_mumbai", "ibm_torino"])
    @pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
    def test_helpers_are_idle_and_serve_one_product(self, name, fraction):
        device = load_device(name)
        placement = device_placement(device, order="plain")
        rows, fan_in, width = 6, 63, len(placement.compute)
        wanted = random_mask(rows, fan_in, fraction)
        placed = placement.place(wanted).tolist()
        for row in range(rows):
            for start in range(0, fan_in, width):
                step = range(start, min(start + width, fan_in))
                busy = {placement.compute[j - start] for j in step}
                used = []
                for j in step:
                    site = placement.sites[placed[row][j]]
                    assert site.qubit == placement.compute[j - start]
                    assert wanted[row, j] or site.neighbour is None
                    used += site.qubits[1:]
                assert len(used) == len(set(used))
                assert not busy & set(used)
                for j in step:  # nobody who could still be served was left out
                    site = placement.sites[placed[row][j]]
                    if wanted[row, j] and site.neighbour is None:
                        assert set(device.neighbours[site.qubit]) <= busy | set(used)

    def test_plain_sites_follow_the_execution_order(self, nairobi):
        sites = device_placement(nairobi).plain_sites((2, 3, 2, 2))
        assert sites.shape == (2, 3, 2, 2)
        assert sites.flatten(1).tolist() == [[j % 5 for j in range(12)]] * 2

    def test_one_critical_weight_a_step_is_always_served(self, nairobi):
        placement = device_placement(nairobi, order="plain")
        wanted = torch.zeros(1, 25, dtype=torch.bool)
        wanted[0, [0, 6, 12, 18, 24]] = True
        assert (injected(placement, placement.place(wanted)) == wanted).all()

    def test_two_hops_are_used_where_a_partner_is_idle(self, nairobi):
        """0 and 2 share the neighbour 1; with compute (0, 6) qubits 2, 3 and 4 are idle."""
        placement = device_placement(nairobi, compute=(0, 6), order="plain")
        assert {s.qubits for s in placement.sites} >= {(0, 1, 2), (0, 1, 3), (6, 5, 3), (6, 5, 4)}
        placed = placement.place(torch.ones(3, 8, dtype=torch.bool))
        assert injected(placement, placed).all()
        # Direct neighbours are free here and come first.
        assert all(placement.sites[i].partner is None for i in placed.flatten().tolist())

    @pytest.mark.parametrize("compute", [(3, 0), (0, 3)])
    def test_qubits_with_fewest_choices_come_first(self, nairobi, compute):
        """3 can take 1 or 5, and 0 only 1."""
        placement = device_placement(nairobi, compute=compute, order="plain")
        placed = placement.place(torch.ones(2, 6, dtype=torch.bool))
        assert injected(placement, placed).all()

    @pytest.mark.parametrize("products", [1, 2, 3, 4])
    def test_a_partner_must_be_idle_too(self, products):
        """Spectator injection alone, from 2, which runs every other product itself."""
        sites = (Site(0), Site(2), Site(0, 1, 2))
        placement = Placement((0, 2), sites, order="plain")
        placed = placement.place(torch.ones(3, products, dtype=torch.bool))
        assert placed.tolist() == [[[2], [0, 1], [0, 1, 2], [0, 1, 0, 1]][products - 1]] * 3


class TestStretchedOrder:
    @pytest.mark.parametrize("fraction", [0.0, 0.1, 0.6, 1.0])
    @pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_torino"])
    def test_serves_exactly_the_critical_weights(self, name, fraction):
        placement = device_placement(load_device(name))
        wanted = random_mask(6, 70, fraction)
        placed = placement.place(wanted.view(6, 7, 10))
        assert placed.shape == (6, 7, 10)
        assert placed.dtype == torch.int16
        placed = placed.view(6, 70)
        assert (injected(placement, placed) == wanted).all()
        plain = placement.plain_sites((6, 70))
        assert (placed[~wanted] == plain[~wanted]).all()

    def test_two_weights_in_turn_share_an_edge_and_all_edges_share_the_work(self, nairobi):
        placement = device_placement(nairobi)
        wanted = random_mask(3, 1500, 0.5)
        for row, mask in zip(placement.place(wanted), wanted, strict=True):
            served = row[mask].tolist()
            assert served[: len(served) // 2 * 2 : 2] == served[1::2]
            edges, counts = np.unique(served, return_counts=True)
            assert [placement.sites[i].qubits for i in edges] == [
                (0, 1), (2, 1), (3, 1), (3, 5), (4, 5), (6, 5)
            ]  # fmt: skip
            assert counts.min() > len(served) / 20
        again = placement.place(torch.cat([wanted, wanted]))
        assert torch.equal(again[:3], again[3:])


class TestAwareOrder:
    def test_sums_without_critical_weights_stay_as_they_are(self, nairobi):
        placement = device_placement(nairobi, order="aware")
        wanted = random_mask(4, 33, 0.3)
        wanted[[0, 2]] = False
        placed = placement.place(wanted)
        plain = placement.plain_sites((4, 33))
        assert torch.equal(placed[[0, 2]], plain[[0, 2]])
        assert injected(placement, placed)[[1, 3]].any(1).all()

    def test_scores_of_weights_that_are_not_critical_do_not_count(self, nairobi):
        placement = device_placement(nairobi, order="aware")
        wanted = random_mask(4, 50, 0.3)
        scores = torch.where(wanted, -1.0 - torch.rand(4, 50), 1.0)
        assert (injected(placement, placement.place(wanted, scores)) == wanted).all()

    @pytest.mark.parametrize("fraction", [0.1, 0.3])
    def test_nairobi_serves_every_weight_up_to_thirty_percent(self, nairobi, fraction):
        placement = device_placement(nairobi, order="aware")
        wanted = random_mask(32, 500, fraction)
        assert (injected(placement, placement.place(wanted)) == wanted).all()

    @pytest.mark.parametrize("fraction", [0.38, 0.45, 0.7, 1.0])
    def test_serves_as_many_as_neighbours_allow(self, nairobi, fraction):
        """Two neighbours for five compute qubits: 40 % of each sum, the most critical ones."""
        placement = device_placement(nairobi, order="aware")
        wanted = random_mask(16, 200, fraction)
        served = injected(placement, placement.place(wanted))
        assert not (served & ~wanted).any()
        assert (served.sum(1) == wanted.sum(1).clamp(max=80)).all()

    def test_the_most_critical_are_served_first(self, nairobi):
        generator = torch.Generator().manual_seed(0)
        scores = torch.rand((4, 100), generator=generator)
        placement = device_placement(nairobi, order="aware")
        served = injected(placement, placement.place(torch.ones(4, 100, dtype=bool), scores))
        for row in range(4):
            top = torch.zeros(100, dtype=torch.bool)
            top[scores[row].topk(40).indices] = True
            assert (served[row] == top).all()

    @pytest.mark.parametrize("shape", [(3, 1), (2, 7), (4, 2, 3, 3), (1, 1, 5)])
    def test_every_compute_qubit_gets_its_share_of_the_products(self, nairobi, shape):
        placement = device_placement(nairobi, order="aware")
        wanted = random_mask(shape[0], int(np.prod(shape[1:])), 0.5).view(shape)
        placed = placement.place(wanted)
        assert placed.shape == shape
        assert placed.dtype == torch.int16
        qubits = torch.tensor([s.qubit for s in placement.sites])[placed.long()].flatten(1)
        for row in qubits.tolist():
            expected = [placement.compute[j % 5] for j in range(len(row))]
            assert sorted(row) == sorted(expected)

    def test_no_critical_weight_means_no_injection(self, nairobi):
        placement = device_placement(nairobi, order="aware")
        assert not injected(placement, placement.place(torch.zeros(3, 9, dtype=bool))).any()

    def test_every_edge_is_used(self, nairobi):
        placement = device_placement(nairobi, order="aware")
        placed = placement.place(torch.ones(1, 500, dtype=torch.bool))
        used = {placement.sites[i].qubits for i in placed.unique().tolist()}
        assert {q for q in used if len(q) == 2} == {
            (0, 1), (2, 1), (3, 1), (3, 5), (4, 5), (6, 5)
        }  # fmt: skip

    def test_device_with_two_hops(self):
        """A line 0-1-2-3: product on 0 alone, partner 2 idle; 1 can also pair with it."""
        edges = [Edge(control=i, target=i + 1) for i in range(3)]
        device = DeviceProfile(
            name="line",
            two_qubit_gate="cz",
            qubits=(Qubit(),) * 4,
            edges=tuple(edges),
            crosstalk_model="paper",
        )
        placement = device_placement(device, compute=(0, 3))
        assert {s.qubits for s in placement.sites} == {
            (0,), (3,), (0, 1), (3, 2), (0, 1, 2), (3, 2, 1)
        }  # fmt: skip
        assert injected(placement, placement.place(torch.ones(2, 6, dtype=torch.bool))).all()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["stretched", "aware", "plain"])
def test_fifteen_million_weights_take_seconds(nairobi, order):
    wanted = random_mask(3260, 4608, 0.3)
    placement = device_placement(nairobi, order=order)
    start = time.perf_counter()
    placed = placement.place(wanted, torch.rand(wanted.shape))
    assert time.perf_counter() - start < 10
    assert placed.numel() > 15e6


@pytest.mark.parametrize("order", ["stretched", "aware", "plain"])
def test_a_qubit_without_neighbours_gets_no_injection(nairobi, order):
    edges = tuple(edge for edge in nairobi.edges if 0 not in (edge.control, edge.target))
    placement = device_placement(
        nairobi.model_copy(update={"edges": edges}), compute=[0], order=order
    )
    sites = placement.place(torch.ones(3, 7, dtype=torch.bool))
    assert torch.equal(sites, placement.plain_sites((3, 7)))
