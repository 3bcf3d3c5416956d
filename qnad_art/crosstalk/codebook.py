"""The codebook: everything that its neighbours can do to the phase of a product.

Each injection site and signed pair count is a *codeword*: it turns the weight's phase by an angle
and shrinks it by a contraction, both read from the response table (a2 = r sin(φ + δ)). Different
edges turn by different angles, so together they reach phases far closer to each other than one
edge does. :class:`Codebook` finds the codeword for a wanted phase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qnad_art.circuits import Site
from qnad_art.errors import InvalidInputError
from qnad_art.response import ResponseTable

Words = Literal["all", "one-hop", "placed"]
WORDS: tuple[Words, ...] = ("all", "one-hop", "placed")

BINS = 1 << 12
"""Wanted phases in [-π, π] are told apart to 2π / BINS."""


@dataclass(frozen=True)
class Codebook:
    """For every wanted phase the codeword nearest to it.

    Args:
        site, pairs: (groups, BINS + 1), site index and signed pair count by group and phase.
        group: (sites,) the group from which a weight placed on a site may choose.
        limit: (groups,) largest phase in rad worth asking for.
        words: number of codewords, (groups,).
    """

    site: Tensor
    pairs: Tensor
    group: Tensor
    limit: Tensor
    words: Tensor

    def nearest(self, phase: Tensor, placed: Tensor) -> tuple[Tensor, Tensor]:
        """Codewords (site int16, pairs int8) for phases in rad; zero pairs keep the placed site.

        Args:
            phase: wanted phases.
            placed: where the weights are placed, site indices of the same shape.
        """
        scaled = (phase.detach() + torch.pi) * (BINS / (2 * torch.pi))
        position = scaled.round().long().clamp_(0, BINS)
        position += self.group[placed.long()] * (BINS + 1)
        pairs = self.pairs.flatten()[position]
        return torch.where(pairs == 0, placed, self.site.flatten()[position]), pairs

    def limits(self, placed: Tensor) -> Tensor:
        """Largest phase of each weight, float32."""
        return self.limit[self.group[placed.long()]]

    def to(self, device: torch.device) -> Codebook:
        """Copy on a torch device."""
        return Codebook(*(t.to(device) for t in self.__dict__.values()))


def build_codebook(table: ResponseTable, *, words: Words, max_pairs: int) -> Codebook:
    """Codebook of a device.

    Args:
        table: its response.
        words: ``"all"``: every edge, one hop and spectator, of every compute qubit; ``"one-hop"``:
            without spectators; ``"placed"``: only the edge that the weight is placed on.
        max_pairs: largest number of pairs in a codeword.
    """
    if words not in WORDS:
        raise InvalidInputError(f"codebook {words!r} is not one of {', '.join(WORDS)}.")
    choices: dict[Words, Callable[[Site], bool]] = {
        "all": lambda site: True,
        "one-hop": lambda site: site.partner is None,
        "placed": lambda site: True,
    }
    usable = [i for i, s in enumerate(table.sites) if s.neighbour is not None and choices[words](s)]
    if words == "placed":
        groups = [[index] for index in usable]
        group = torch.zeros(len(table.sites), dtype=torch.int64)
        group[usable] = torch.arange(len(usable))
    else:
        groups, group = [usable], torch.zeros(len(table.sites), dtype=torch.int64)
    built = [_nearest_words(table, sites, max_pairs) for sites in groups]
    sites, pairs, limits, counts = zip(*built, strict=True)
    return Codebook(
        torch.stack(sites), torch.stack(pairs), group, torch.tensor(limits), torch.tensor(counts)
    )


def _nearest_words(
    table: ResponseTable, sites: list[int], max_pairs: int
) -> tuple[Tensor, Tensor, float, int]:
    """Codeword for every bin: the one whose turned and shrunk phase vector is nearest.

    All are compared with a vector as long as a product's without injection is on average, so that
    of two codewords with one angle the less decohering wins.
    """
    counts = np.array([k for k in range(-max_pairs, max_pairs + 1) if k])
    response = table.values[sites][:, counts + table.max_pairs, 2, 1:]
    vectors = np.append((response[..., 1] + 1j * response[..., 0]).ravel(), 0)
    site = np.append(np.repeat(sites, len(counts)), sites[0]).astype(np.int16)
    pairs = np.append(np.tile(counts, len(sites)), 0).astype(np.int8)
    idle = table.values[sites, table.max_pairs, 2, 2].mean()
    vectors[-1] = idle  # no pairs: no turn
    order = np.argsort(np.angle(vectors))
    grid = np.linspace(-np.pi, np.pi, BINS + 1)
    wanted = idle * np.exp(1j * grid)
    best = np.abs(wanted[:, None] - vectors[order]).argmin(1)
    chosen = order[best]
    chosen[BINS // 2] = len(vectors) - 1  # also where injection changes nothing (ideal devices)
    limit = float(np.abs(np.angle(vectors)).max())
    return torch.tensor(site[chosen]), torch.tensor(pairs[chosen]), limit, len(vectors)
