import numpy as np
import pytest
import torch

from qnad_art.circuits.response import response_table, usual_pairs
from qnad_art.crosstalk.codebook import build_codebook
from qnad_art.device.catalogue import load_device
from qnad_art.errors import InvalidInputError
from qnad_art.placement.placement import device_placement


@pytest.fixture(scope="module", params=["ibm_nairobi", "ibm_nairobi[crosstalk=paper]"])
def table(request):
    device = load_device(request.param)
    return response_table(device, device_placement(device).sites, max_pairs=usual_pairs(device))


def effective(table, angle, site, pairs):
    """Half the difference of the products with x̂ = 1 and x̂ = -1."""
    theta = np.full(np.shape(angle), np.pi / 2)
    up, down = (table.expectation(t, angle, site, pairs) for t in (theta, -theta))
    return (up - down) / 2


def edge(table, *qubits):
    return next(i for i, site in enumerate(table.sites) if site.qubits == qubits)


def problem(table, count=300):
    generator = torch.Generator().manual_seed(0)
    angle = (torch.rand(count, generator=generator) - 0.5) * 3
    wanted = (torch.rand(count, generator=generator) - 0.5) * 1.4
    return wanted, angle, torch.full((count,), edge(table, 6, 5))


@pytest.mark.parametrize("words", ["all", "one-hop", "placed"])
def test_no_codeword_is_much_nearer_than_the_chosen_one(table, words):
    book = build_codebook(table, words=words, max_pairs=table.max_pairs)
    wanted, angle, placed = problem(table)
    site, pairs = book.nearest(wanted, angle, placed)
    got = effective(table, angle.numpy(), site.numpy(), pairs.numpy())
    best = np.full(len(wanted), np.inf)
    for index, candidate in enumerate(table.sites):
        if words == "placed" and index != placed[0]:
            continue
        if words == "one-hop" and candidate.partner is not None:
            continue
        if candidate.next_to is not None or not table.turns[index].any():
            continue
        for count in range(-table.max_pairs, table.max_pairs + 1):
            where = int(placed[0]) if count == 0 else index
            full = np.full(len(wanted), where), np.full(len(wanted), count)
            error = np.abs(effective(table, angle.numpy(), *full) - wanted.numpy())
            best = np.minimum(best, error)
    # Phases, values and near-equal codewords are told apart to a few thousandths each.
    assert (np.abs(got - wanted.numpy()) <= best + 0.012).all()


def test_what_a_weight_has_needs_no_injection(table):
    book = build_codebook(table, words="all", max_pairs=table.max_pairs)
    _, angle, _ = problem(table)
    placed = torch.arange(len(angle)) % len(table.sites)
    idle = effective(table, angle.numpy(), placed.numpy(), np.zeros(len(angle), int))
    site, pairs = book.nearest(torch.tensor(idle), angle, placed)
    assert (pairs == 0).double().mean() > 0.75  # the others: a value just as near, phases rounded
    assert torch.equal(site[pairs == 0].long(), placed[pairs == 0])


def test_all_edges_together_reach_finer_steps_than_one(table):
    def error(words):
        book = build_codebook(table, words=words, max_pairs=table.max_pairs)
        wanted, angle, placed = problem(table)
        low, high = book.limits(angle, placed)
        wanted = wanted.clamp(low, high)
        site, pairs = book.nearest(wanted, angle, placed)
        got = effective(table, angle.numpy(), site.numpy(), pairs.numpy())
        return np.sqrt(((got - wanted.numpy()) ** 2).mean())

    assert error("all") < 0.01
    assert error("all") < error("one-hop") < error("placed")
    assert error("all") < error("placed") / 3


def test_limits_are_what_the_codewords_reach(table):
    book = build_codebook(table, words="placed", max_pairs=2)
    angle = torch.linspace(-1.5, 1.5, 7)
    index = edge(table, 2, 1)
    placed = torch.full((7,), index)
    low, high = book.limits(angle, placed)
    reached = np.stack(
        [
            effective(table, angle.numpy(), np.full(7, index), np.full(7, count))
            for count in range(-2, 3)
        ]
    )
    np.testing.assert_allclose(low, reached.min(0), atol=0.005)
    np.testing.assert_allclose(high, reached.max(0), atol=0.005)
    _, pairs = book.nearest(torch.full((7,), 1.0), angle, placed)
    assert pairs.abs().max() <= 2


def test_unknown_words_are_refused(table):
    with pytest.raises(InvalidInputError, match="all, one-hop, placed"):
        build_codebook(table, words="some", max_pairs=table.max_pairs)


def test_no_codeword_turns_further_than_it_may(table):
    book = build_codebook(table, words="all", max_pairs=table.max_pairs, max_turn=0.5)
    site, pairs = book.site.long(), book.pairs.long()
    assert float(torch.tensor(table.turns)[site, pairs + table.max_pairs].abs().max()) <= 0.5


def test_of_near_equal_codewords_the_one_that_turns_least_is_chosen(table):
    near, far = (
        build_codebook(table, words="all", max_pairs=table.max_pairs, max_turn=most)
        for most in (10.0, None)
    )
    turns = torch.tensor(table.turns).abs()

    def mean(book):
        return float(turns[book.site.long(), book.pairs.long() + table.max_pairs].mean())

    assert mean(near) < mean(far)
