"""The time step of each product: no physical qubit is used twice in one step."""

from __future__ import annotations

import torch
from torch import Tensor

from qnad_art.placement.placement import Placement

_ROWS = 256
"""Number of outputs scheduled together, which limits the memory."""


def time_steps(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Time step of every product of a layer, counted from 0 for each output.

    An injected product occupies its qubit, its neighbour and, with spectator injection, the
    neighbour's partner. Any other product occupies only its qubit. Injected products are placed
    first, each in the first step after the last use of its qubits. The others fill the gaps.

    Args:
        placement: defines the sites behind the indices.
        site, pairs: as in :class:`~qnad_art.placement.plan.LayerPlan`, in the weight's shape.

    Returns:
        int64, in the weight's shape.
    """
    rows = [part.flatten(1).cpu() for part in (site.long(), pairs != 0)]
    parts = zip(*(part.split(_ROWS) for part in rows), strict=True)
    return torch.cat([_schedule(placement, *part) for part in parts]).view(site.shape)


def steps_an_output(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Number of time steps of every output's sum, int64 (out,)."""
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
    for helper in range(3):  # products without injection count as uses of the placeholder qubit
        taken = torch.where(injected, qubits[site, helper], last)
        used.scatter_(1, taken * horizon + torch.where(injected, step, 0), 1)
    # For every qubit, its free steps come first, in order.
    free = torch.argsort(used.view(len(site), last + 1, horizon), dim=2, stable=True).flatten(1)
    return torch.where(rest, free.gather(1, qubit * horizon + torch.where(rest, rank, 0)), step)


def _ranks(values: Tensor) -> Tensor:
    """Number of equal values before each entry of its row, (rows, n)."""
    ordered, order = values.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(1, order, torch.arange(values.shape[1]) - first)


def _site_qubits(placement: Placement) -> Tensor:
    """Physical qubits of each site, (sites, 3), padded with the index of a placeholder qubit."""
    last = 1 + max(max(s.qubits) for s in placement.sites)
    return torch.tensor([[*s.qubits, last, last][:3] for s in placement.sites])


def _schedule_injected(placement: Placement, site: Tensor, injected: Tensor) -> Tensor:
    """Steps of the injected products (0 for the others); shared qubits are used one at a time."""
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
