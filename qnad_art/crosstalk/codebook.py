"""The codebook: everything that its neighbours can do to a product.

Each injection site and signed pair count is a *codeword*. Of a product with the weight's phase φ it
makes ⟨Z⟩ = a2 x̂ (plus a constant) with a2 = C_21 cos φ + C_22 sin φ, read from the response table:
the *effective weight* in units of s_w. One edge reaches a few values; the edges of a device
together, each with its own angle and attenuation, reach them densely. :class:`Codebook` finds the
codeword for a wanted effective weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qnad_art.circuits.response import ResponseTable
from qnad_art.errors import InvalidInputError

Words = Literal["all", "one-hop", "placed"]
WORDS: tuple[Words, ...] = ("all", "one-hop", "placed")

VALUES = 1 << 10
"""Wanted effective weights in [-1, 1] are told apart to 2 / VALUES."""
ENTRIES = 1 << 22
"""Entries of all look-up tables together; sets how finely the weights' phases are told apart."""
TOLERANCE = 0.004
"""Codewords whose values lie so close together count as equal."""
MAX_TURN = 1.2
"""Rad by which codewords of a crosstalk model in time turn at most, unless asked for otherwise."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Codebook:
    """For every phase φ and wanted effective weight the nearest codeword.

    Args:
        site, pairs: (groups, phases, VALUES + 1), site index and signed pair count; phases and
            values are evenly spaced over [-π/2, π/2] and [-1, 1].
        low, high: (groups, phases), smallest and largest value within reach.
        group: (sites,) which group a weight placed on a site belongs to.
    """

    site: Tensor
    pairs: Tensor
    low: Tensor
    high: Tensor
    group: Tensor

    def nearest(self, wanted: Tensor, angle: Tensor, placed: Tensor) -> tuple[Tensor, Tensor]:
        """Codewords (site int16, pairs int8); zero pairs keep the placed site.

        Args:
            wanted: effective weights in units of s_w.
            angle: the weights' phases φ in rad, same shape.
            placed: where the weights are placed, site indices of the same shape.
        """
        value = ((wanted.detach() + 1) * (VALUES / 2)).round().long().clamp_(0, VALUES)
        position = self._row(angle, placed) * (VALUES + 1) + value
        pairs = self.pairs.flatten()[position]
        return torch.where(pairs == 0, placed, self.site.flatten()[position]), pairs

    def limits(self, angle: Tensor, placed: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest effective weight that each weight can have."""
        row = self._row(angle, placed)
        return self.low.flatten()[row], self.high.flatten()[row]

    def to(self, device: torch.device) -> Codebook:
        """Copy on a torch device."""
        return Codebook(*(tensor.to(device) for tensor in self.__dict__.values()))

    def _row(self, angle: Tensor, placed: Tensor) -> Tensor:
        phases = self.low.shape[1]
        column = ((angle / torch.pi + 0.5) * (phases - 1)).round().long().clamp_(0, phases - 1)
        return self.group[placed.long()] * phases + column


def build_codebook(
    table: ResponseTable, *, words: Words, max_pairs: int, max_turn: float | None = None
) -> Codebook:
    """Codebook of a device.

    Args:
        table: its response.
        words: ``"all"``: every edge, one hop and spectator, of every compute qubit; ``"one-hop"``:
            without spectators; ``"placed"``: only the edge that the weight is placed on.
        max_pairs: largest number of pairs in a codeword.
        max_turn: angle in rad by which a codeword may turn the weight's phase at most. Of codewords
            with near-equal values the one that turns least is then used: what turns less feels a
            drift of the coupling less. ``None`` means no limit, and the one with fewest pairs.
    """
    if words not in WORDS:
        raise InvalidInputError(f"codebook {words!r} is not one of {', '.join(WORDS)}.")
    usable = [
        index
        for index, site in enumerate(table.sites)
        if site.neighbour is not None
        and site.next_to is None
        and (words != "one-hop" or site.partner is None)
    ]
    # Under some models a pair on the product's own edge turns nothing: noise alone is no lever.
    usable = [index for index in usable if table.turns[index].any()] or usable
    homes, group = _groups(table, usable, words)
    phases = int(np.clip(ENTRIES // (len(homes) * (VALUES + 1)), 64, 512))
    angles = np.linspace(-np.pi / 2, np.pi / 2, phases)
    built = [
        _tabulate(table, home, [home] if words == "placed" else usable, angles, max_pairs, max_turn)
        for home in homes
    ]
    site, pairs, low, high = (torch.tensor(np.stack(part)) for part in zip(*built, strict=True))
    return Codebook(site, pairs, low.float(), high.float(), torch.tensor(group))


def _groups(table: ResponseTable, usable: list[int], words: Words) -> tuple[list[int], list[int]]:
    """The site that each look-up table is made for, and by site the number of its table.

    Weights on one qubit share a table, for they may choose the same codewords; weights that must
    keep their edge share it with those on the same edge only.
    """
    if words == "placed":
        number = {site: group for group, site in enumerate(usable)}
        # Where there is no neighbour nothing is injected, so any table will do.
        return usable, [number.get(site, 0) for site in range(len(table.sites))]
    on = [site.qubit for site in table.sites]
    qubits = sorted(set(on))
    return [on.index(qubit) for qubit in qubits], [qubits.index(qubit) for qubit in on]


def _tabulate(
    table: ResponseTable,
    home: int,
    sites: list[int],
    angles: Array,
    max_pairs: int,
    max_turn: float | None,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int8], Array, Array]:
    """Codewords by phase and wanted value for weights at ``home``, and the range within reach."""
    counts = sorted((k for k in range(-max_pairs, max_pairs + 1) if k), key=abs)
    found = [(site, count) for count in counts for site in sites]
    if max_turn is not None:
        turns = np.abs(table.turns)
        found = [word for word in found if turns[word[0], word[1] + table.max_pairs] <= max_turn]
        found.sort(key=lambda word: turns[word[0], word[1] + table.max_pairs])
    # No injection first, then in order of preference: np.unique keeps the first of its equals.
    words = [(home, 0), *found]
    site, pairs = (np.array(part) for part in zip(*words, strict=True))
    response = table.values[site, pairs + table.max_pairs, 2]
    values = np.outer(np.cos(angles), response[:, 1]) + np.outer(np.sin(angles), response[:, 2])
    wanted = np.linspace(-1, 1, VALUES + 1)
    chosen = np.empty((len(angles), VALUES + 1), dtype=np.int64)
    for row, reached in enumerate(values):
        _, first = np.unique(np.round(reached / TOLERANCE), return_index=True)
        middles = (reached[first][1:] + reached[first][:-1]) / 2
        chosen[row] = first[np.searchsorted(middles, wanted)]
    return (
        site[chosen].astype(np.int16),
        pairs[chosen].astype(np.int8),
        values.min(1),
        values.max(1),
    )
