import math

import numpy as np
import pytest
import torch

from qnad_art.crosstalk.codebook import build_codebook
from qnad_art.device import load_device
from qnad_art.errors import InvalidInputError
from qnad_art.placement import device_placement
from qnad_art.response import response_table


@pytest.fixture(scope="module")
def table():
    nairobi = load_device("ibm_nairobi")
    return response_table(nairobi, device_placement(nairobi).sites, max_pairs=8)


def turned(table, site, pairs):
    """Phase vector of a codeword as a complex number, from products at φ = 0 and π/2."""
    theta, phi = np.full(2, np.pi / 2), np.array([np.pi / 2, 0.0])
    real, imaginary = table.expectation(theta, phi, np.full(2, site), np.full(2, pairs))
    return complex(real, imaginary)


@pytest.mark.parametrize("words", ["all", "one-hop", "placed"])
def test_the_nearest_codeword_is_found(table, words):
    book = build_codebook(table, words=words, max_pairs=8)
    placed = torch.tensor([table.index[s] for s in table.sites if s.qubits == (6, 5)] * 9)
    phase = torch.linspace(-1.2, 1.2, 9)
    site, pairs = book.nearest(phase, placed)
    allowed = [
        (i, k)
        for i, s in enumerate(table.sites)
        for k in range(-8, 9)
        if s.neighbour is not None
        and (words == "all" or s.partner is None)
        and (words != "placed" or s.qubits == (6, 5))
        and k
    ]
    allowed.append((int(placed[0]), 0))
    length = abs(np.mean([turned(table, i, 0) for i, _ in allowed]))
    for wanted, i, k in zip(phase.tolist(), site.tolist(), pairs.tolist(), strict=True):
        target = length * complex(math.cos(wanted), math.sin(wanted))
        distances = [abs(turned(table, *word) - target) for word in allowed]
        assert abs(turned(table, i, k) - target) <= min(distances) + 3e-3


def test_no_phase_means_no_injection_where_the_weight_was_placed(table):
    book = build_codebook(table, words="all", max_pairs=8)
    placed = torch.arange(len(table.sites))
    site, pairs = book.nearest(torch.zeros(len(placed)), placed)
    assert not pairs.any()
    assert torch.equal(site, placed)


def test_all_edges_together_turn_in_finer_steps_than_one(table):
    def largest_error(words):
        book = build_codebook(table, words=words, max_pairs=8)
        wanted = torch.linspace(-1, 1, 401)
        placed = torch.full((401,), next(table.index[s] for s in table.sites if s.neighbour))
        got = [turned(table, i, k) for i, k in zip(*book.nearest(wanted, placed), strict=True)]
        return np.abs(np.angle(got) - wanted.numpy()).max()

    assert largest_error("all") < 0.075
    assert largest_error("all") < largest_error("one-hop")


def test_phases_out_of_reach_are_limited(table):
    book = build_codebook(table, words="placed", max_pairs=2)
    placed = torch.tensor([table.index[s] for s in table.sites if s.qubits == (2, 1)])
    assert book.limits(placed).item() == pytest.approx(0.35, abs=0.01)
    assert book.nearest(torch.tensor([3.0]), placed)[1].abs().item() == 2


def test_unknown_words_are_refused(table):
    with pytest.raises(InvalidInputError, match="all, one-hop, placed"):
        build_codebook(table, words="some", max_pairs=8)
