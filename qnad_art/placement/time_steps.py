"""When each product of a sum runs: time steps in which no physical qubit is used twice."""

from __future__ import annotations

import torch
from torch import Tensor

from qnad_art.placement.placement import Placement

_ROWS = 256
"""Outputs scheduled at a time, to bound the memory."""


def time_steps(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Time step of every product of a layer, from 0 on for each output.

    An injected product occupies its qubit, its neighbour and, as a spectator, the neighbour's
    partner; any other only its qubit. Injected products are placed first, each in the first step
    after the last use of its qubits; the others fill the gaps.

    Args:
        placement: what the site indices mean.
        site, pairs: of a :class:`~qnad_art.placement.plan.LayerPlan`, in the weight's shape.

    Returns:
        int64, shape of the weight.
    """
    rows = [part.flatten(1).cpu() for part in (site.long(), pairs != 0)]
    parts = zip(*(part.split(_ROWS) for part in rows), strict=True)
    return torch.cat([_schedule(placement, *part) for part in parts]).view(site.shape)


def steps_an_output(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Number of time steps that every output's sum takes, int64 (out,)."""
    return time_steps(placement, site, pairs).flatten(1).amax(1) + 1


def _schedule(placement: Placement, site: Tensor, injected: Tensor) -> Tensor:
    step = _schedule_injected(placement, site, injected)
    rest = ~injected
    if not rest.any():
        return step
    qubits = _site_qubits(placement)
    last = int(qubits.max())
    qubit = torch.where(rest, qubits[site, 0], last)
    rank = _ranks(qubit)
    horizon = int(torch.where(injected, step + 1, 0).max() + torch.where(rest, rank, 0).max()) + 1
    used = torch.zeros(len(site), (last + 1) * horizon, dtype=torch.uint8)
    for helper in range(3):  # what is not injected counts as a use of the qubit that is none
        taken = torch.where(injected, qubits[site, helper], last)
        used.scatter_(1, taken * horizon + torch.where(injected, step, 0), 1)
    # Of every qubit first its free steps, in order.
    free = torch.argsort(used.view(len(site), last + 1, horizon), dim=2, stable=True).flatten(1)
    return torch.where(rest, free.gather(1, qubit * horizon + torch.where(rest, rank, 0)), step)


def _ranks(values: Tensor) -> Tensor:
    """How many of the same value stand before each in its row, (rows, n)."""
    ordered, order = values.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(1, order, torch.arange(values.shape[1]) - first)


def _site_qubits(placement: Placement) -> Tensor:
    """Physical qubits of each site, (sites, 3); filled up with one more than there are."""
    last = 1 + max(max(s.qubits) for s in placement.sites)
    return torch.tensor([[*s.qubits, last, last][:3] for s in placement.sites])


def _schedule_injected(placement: Placement, site: Tensor, injected: Tensor) -> Tensor:
    """Steps of the injected products (0 for the others), one after another on shared qubits."""
    qubits = _site_qubits(placement)
    last = int(qubits.max())
    sizes = torch.tensor([len(s.qubits) for s in placement.sites])
    order = torch.argsort(torch.where(injected, -sizes[site], 0), dim=1, stable=True)
    step = torch.zeros_like(site)
    free = torch.zeros(len(site), last + 1, dtype=torch.int64)  # first step after the last use
    for weights in order[:, : int(injected.sum(1).max())].T:
        weights = weights[:, None]
        run = injected.gather(1, weights)
        uses = qubits[site.gather(1, weights)[:, 0]]
        now = free.gather(1, uses).amax(1, keepdim=True)
        step.scatter_(1, weights, torch.where(run, now, step.gather(1, weights)))
        free.scatter_(1, uses, torch.where(run, now + 1, free.gather(1, uses)))
        free[:, last] = 0
    return step
