"""Products side by side: each once, none that disturbs another."""

from itertools import combinations

import numpy as np
import pytest

from qnad_art.circuits.product import Site
from qnad_ibm_runtime.packing import pack, word_of


def used(slot):
    site, pairs = slot
    return set(site.qubits if pairs else (site.qubit,))


def around(device, qubits):
    return {*qubits, *(near for qubit in qubits for near in device.neighbours[qubit])}


@pytest.mark.parametrize("name", ["nairobi", "nairobi_of_paper", "sherbrooke"])
@pytest.mark.parametrize("most", [None, 3])
def test_every_product_runs_once_and_alone_with_its_neighbours(
    name, most, request, random_products
):
    device = request.getfixturevalue(name)
    _, _, sites, site, pairs = random_products(device, 400)
    packed = pack(device, sites, site, pairs, most=most)
    products = np.concatenate([circuit.products.ravel() for circuit in packed])
    np.testing.assert_array_equal(np.sort(products), np.arange(400))
    for circuit in packed:
        assert circuit.products.shape[1] == len(circuit.slots) <= (most or len(circuit.slots))
        for row in circuit.products:
            for product, (where, count) in zip(row, circuit.slots, strict=True):
                assert where.qubit == sites[site[product]].qubit
                assert count == pairs[product]
                assert not count or where == sites[site[product]]
        for one, other in combinations(circuit.slots, 2):
            if word_of(one) and word_of(one) == word_of(other):
                assert one[0].qubit not in around(device, [other[0].qubit])
            else:
                assert not used(one) & around(device, used(other))


def test_products_next_to_a_word_join_it(nairobi):
    """All five products of a step: one has the word, two meet what it leaves, two are far off."""
    word, plain = Site(0, 1, kind="wait"), (Site(4), Site(6))
    met = tuple(Site(qubit, 1, kind="wait", next_to=0) for qubit in (2, 3))
    sites, counts = (word, *met, *plain), np.array([5, 5, 5, 0, 0])
    (circuit,) = pack(nairobi, sites, np.arange(5), counts)
    assert set(circuit.slots) == set(zip(sites, counts.tolist(), strict=True))


@pytest.mark.parametrize(
    "other",
    [
        (Site(2), 0),  # it would meet what the word leaves behind
        (Site(2, 1, kind="wait", next_to=0), 4),  # next to a longer or shorter word
        (Site(2, 1, kind="echo", next_to=0), 5),
        (Site(2, 1, kind="wait", next_to=3), 5),  # next to the word of another product
        (Site(2, 1, kind="wait"), 5),
        (Site(3, 5, kind="wait"), 5),  # its own qubit is disturbed by the word
    ],
)
def test_what_a_word_would_disturb_runs_apart(nairobi, other):
    slots = ((Site(0, 1, kind="wait"), 5), other)
    sites, counts = zip(*slots, strict=True)
    packed = pack(nairobi, sites, np.arange(2), np.array(counts))
    assert sorted(len(circuit.slots) for circuit in packed) == [1, 1]


def test_as_many_as_fit(nairobi, sherbrooke):
    """Plain products on all compute qubits at once; five of ibm_nairobi, half of 127 at least."""
    for device, qubits, fit in ((nairobi, [0, 2, 3, 4, 6], 5), (sherbrooke, range(127), 60)):
        sites = [Site(qubit) for qubit in qubits]
        (first, *_) = pack(device, sites, np.arange(len(sites)), np.zeros(len(sites), int))
        assert len(first.slots) >= fit


def test_rows_share_a_circuit_and_circuits_are_no_more_than_slots(nairobi):
    sites = [Site(0), Site(0, 1), Site(4, 5)]
    site = np.array([0] * 7 + [1] * 2 + [2] * 7)
    pairs = np.array([0] * 7 + [-1] * 2 + [1] * 7)
    packed = pack(nairobi, sites, site, pairs)
    assert [(len(c.slots), len(c.products)) for c in packed] == [(2, 7), (1, 2)]


def test_sites_without_pairs_are_the_same_slot(nairobi):
    (packed,) = pack(nairobi, [Site(0), Site(0, 1)], np.array([0, 1]), np.zeros(2, int))
    assert packed.slots == ((Site(0), 0),)


def test_nothing(nairobi):
    assert pack(nairobi, [Site(0)], np.zeros(0, int), np.zeros(0, int)) == ()
