import pytest
import torch

from qnad_art.circuits.product import Site
from qnad_art.device.catalogue import load_device
from qnad_art.placement.placement import device_placement
from qnad_art.placement.time_steps import settled, steps_an_output, time_steps


def random_layer(placement, rows: int, fan_in: int, fraction: float):
    """Sites at random, spectators included, and pairs on those that can have them."""
    generator = torch.Generator().manual_seed(0)
    width = len(placement.compute)
    injectable = torch.arange(width, len(placement.sites))
    chosen = injectable[torch.randint(len(injectable), (rows, fan_in), generator=generator)]
    injected = torch.rand(rows, fan_in, generator=generator) < fraction
    site = torch.where(injected, chosen, placement.plain_sites((rows, fan_in)))
    return site.to(torch.int16), injected.to(torch.int8)


@pytest.mark.parametrize("name", ["ibm_nairobi", "ibm_mumbai", "ibm_torino"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_no_qubit_is_used_twice_in_a_step(name, fraction):
    placement = device_placement(load_device(f"{name}[crosstalk=paper]"))
    site, pairs = random_layer(placement, 5, 60, fraction)
    steps = time_steps(placement, site, pairs)
    for row in range(5):
        used: set[tuple[int, int]] = set()
        for step, index, count in zip(steps[row], site[row], pairs[row], strict=True):
            qubits = placement.sites[int(index)].qubits
            for qubit in qubits if count else qubits[:1]:
                assert (int(step), qubit) not in used
                used.add((int(step), qubit))


def test_without_crosstalk_every_step_is_full():
    placement = device_placement(load_device("ibm_nairobi[crosstalk=paper]"))
    site = placement.plain_sites((3, 16, 3, 3))
    steps = time_steps(placement, site, torch.zeros(site.shape))
    assert steps.shape == site.shape
    assert steps[0].flatten().tolist() == [j // 5 for j in range(144)]
    assert steps_an_output(placement, site, torch.zeros(site.shape)).tolist() == [29] * 3


def test_stretching_serves_all_and_takes_the_steps_that_neighbours_need():
    """Qubits 1 and 5 are the only neighbours, so 100 injected products take at least 50 steps."""
    placement = device_placement(load_device("ibm_nairobi[crosstalk=paper]"))
    wanted = torch.ones(2, 100, dtype=torch.bool)
    site = placement.place(wanted)
    assert all(placement.sites[i].neighbour is not None for i in site.flatten().tolist())
    assert 50 <= int(steps_an_output(placement, site, wanted).max()) <= 60


def test_a_gap_is_filled_by_products_without_crosstalk():
    placement = device_placement(load_device("ibm_nairobi[crosstalk=paper]"))
    index = {site.qubits: i for i, site in enumerate(placement.sites)}
    site = torch.tensor([[index[2, 1], index[2, 1], index[0,]]])
    assert time_steps(placement, site, torch.tensor([[1, 1, 0]])).tolist() == [[0, 1, 0]]
    idle_neighbour = torch.tensor([[index[2, 1], index[0, 1], index[3, 1]]])
    assert time_steps(placement, idle_neighbour, torch.ones(1, 3)).tolist() == [[0, 1, 2]]
    assert time_steps(placement, idle_neighbour, torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


class TestSideEffects:
    """Under models in which neighbours disturb more than the product that they serve."""

    @pytest.fixture(
        scope="class",
        # The last has words that disturb qubits of no site.
        params=[("ibm_nairobi", None), ("ibm_mumbai", None), ("ibm_nairobi", (0, 2))],
        ids=str,
    )
    def placed(self, request):
        name, compute = request.param
        device = load_device(f"{name}[crosstalk=echoed]")
        placement = device_placement(device, compute=compute)
        generator = torch.Generator().manual_seed(0)
        shape = (6, 90)
        words = torch.tensor([i for sites in placement.injections for i in sites])
        wanted = torch.rand(shape, generator=generator) < 0.3
        drawn = words[torch.randint(len(words), shape, generator=generator)]
        site = torch.where(wanted, drawn, placement.plain_sites(shape).long()).short()
        pairs = (torch.randint(1, 9, shape, generator=generator) * wanted).to(torch.int8)
        return placement, *settled(placement, site, pairs), site, pairs

    def steps(self, placed):
        placement, site, pairs, *_ = placed
        step = time_steps(placement, site, pairs)
        for row in range(len(step)):
            for number in range(int(step[row].max()) + 1):
                (members,) = torch.nonzero(step[row] == number, as_tuple=True)
                yield [(placement.sites[int(site[row, j])], int(pairs[row, j])) for j in members]

    def test_words_that_would_disturb_each_other_are_in_different_steps(self, placed):
        reach = dict(zip(placed[0].sites, placed[0].disturbed, strict=True))
        for products in self.steps(placed):
            words = [site for site, count in products if count and site.next_to is None]
            for word in words:
                for other in words:
                    if other != word:
                        assert not set(reach[word]) & set(other.qubits)
                        assert not set(word.qubits) & set(other.qubits)

    def test_the_others_meet_the_one_word_that_reaches_them(self, placed):
        reach = dict(zip(placed[0].sites, placed[0].disturbed, strict=True))
        met = 0
        for products in self.steps(placed):
            words = {site: count for site, count in products if count and site.next_to is None}
            for site, count in products:
                if site in words:
                    continue
                near = [word for word in words if site.qubit in reach[word]]
                assert len(near) == (site.next_to is not None)
                if near:
                    (word,) = near
                    assert word == Site(site.next_to, site.neighbour, site.partner, site.kind)
                    assert count == words[word]
                    met += 1
        assert met > 10

    def test_settling_twice_changes_nothing(self, placed):
        placement, site, pairs, *_ = placed
        again = settled(placement, site, pairs)
        assert torch.equal(again[0], site)
        assert torch.equal(again[1], pairs)

    def test_words_stay_what_they_were(self, placed):
        _, site, pairs, before, counts = placed
        words = counts != 0
        assert torch.equal(site[words], before[words])
        assert torch.equal(pairs[words], counts[words])
