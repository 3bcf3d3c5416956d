"""When each product of a sum runs: time steps in which no physical qubit is used twice."""

from __future__ import annotations

import torch
from torch import Tensor

from qnad_art.placement import Placement

_ROWS = 256
"""Outputs scheduled at a time, to bound the memory."""


def time_steps(placement: Placement, site: Tensor, pairs: Tensor) -> Tensor:
    """Time step of every product of a layer, from 0 on for each output.

    An injected product occupies its qubit, its neighbour and, as a spectator, the neighbour's
    partner; any other only its qubit. Injected products are placed first, each in the first step
    after the last use of its qubits; the others fill the gaps.

    Args:
        placement: what the site indices mean.
        site, pairs: of a :class:`~qnad_art.crosstalk.plan.LayerPlan`, in the weight's shape.

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
    for qubit in placement.compute:
        on_qubit = torch.tensor([s.qubit == qubit for s in placement.sites])[site]
        helpers = torch.tensor([qubit in s.qubits[1:] for s in placement.sites])[site] & injected
        used = (on_qubit & injected) | helpers
        rest = on_qubit & ~injected
        step = torch.where(rest, _gaps(step, used, rest), step)
    return step


def _schedule_injected(placement: Placement, site: Tensor, injected: Tensor) -> Tensor:
    """Steps of the injected products (0 for the others), one after another on shared qubits."""
    last = 1 + max(max(s.qubits) for s in placement.sites)
    qubits = torch.tensor([[*s.qubits, last, last][:3] for s in placement.sites])
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


def _gaps(step: Tensor, used: Tensor, rest: Tensor) -> Tensor:
    """For the ``rest`` of a qubit's products, the first steps in which it is not ``used``."""
    horizon = int(torch.where(used, step + 1, 0).max() + rest.sum(1).max())
    occupied = torch.zeros(len(step), horizon + 1, dtype=torch.bool)
    occupied.scatter_(1, torch.where(used, step, horizon), True)
    open_steps = torch.argsort(occupied[:, :horizon].byte(), dim=1, stable=True)
    if not horizon:
        return step
    return open_steps.gather(1, (rest.cumsum(1) - 1).clamp_min(0))
