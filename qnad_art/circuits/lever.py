"""The lever of a device: how far its crosstalk can turn the phases of weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import phase_turn
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import MAX_PAIRS
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import DeviceError, QnadWarning

ENOUGH = 0.2
"""Rad. A word that turns by less moves a weight by less than a fifth of the largest in its sum.

(|sin(φ + t) - sin φ| ≤ t.) Among the snapshots of IBM devices the value lies in a wide gap: those
with tunable couplers (cz) reach 0.04 to 0.13 rad, those with fixed couplers 0.6 or more, and three
with a published coupling of 0 nothing."""


@dataclass(frozen=True)
class Lever:
    """How far the words of some sites turn the phase of a weight, in rad.

    Args:
        unit: median over the sites of the turn of one unit, a pair of gates or a wait.
        reach: median over the product qubits of the largest turn of any word.
        largest: largest turn of any word.
    """

    unit: float
    reach: float
    largest: float

    @property
    def strength(self) -> Literal["none", "weak", "enough"]:
        """``none`` where nothing turns, ``weak`` where half of the qubits miss :data:`ENOUGH`."""
        if self.largest == 0:
            return "none"
        return "weak" if self.reach < ENOUGH else "enough"


def find_lever(
    device: DeviceProfile,
    sites: Sequence[Site],
    *,
    max_pairs: int = MAX_PAIRS,
    max_turn: float | None = None,
) -> Lever:
    """Lever of a device under a model in time, by formula: no circuit is simulated.

    Args:
        device: durations, ZZ rates and the crosstalk model.
        sites: those of a placement; sites next to another product do not count, nor do pairs on the
            product's own edge where the model leaves that out.
        max_pairs: largest number of units in a word.
        max_turn: rad; words that turn by more do not count.
    """
    timed = crosstalk_model(device).timed
    limit = math.inf if max_turn is None else max_turn
    units, reached = [0.0], {site.qubit: 0.0 for site in sites if site.next_to is None}
    for site in sites:
        own_edge = timed and site.kind == "pairs" and site.partner is None
        if site.neighbour is None or site.next_to is not None or own_edge:
            continue
        units.append(abs(phase_turn(device, site, 1)))
        words = (abs(phase_turn(device, site, count)) for count in range(max_pairs, 0, -1))
        within = next((turn for turn in words if turn <= limit), 0.0)  # they grow with the count
        reached[site.qubit] = max(reached[site.qubit], within)
    values = list(reached.values()) or [0.0]
    return Lever(median(units[1:] or units), median(values), max(values))


def check_lever(
    device: DeviceProfile,
    sites: Sequence[Site],
    *,
    max_pairs: int = MAX_PAIRS,
    max_turn: float | None = None,
) -> None:
    """Say before hours of tuning that crosstalk can change little on a device.

    Plans under ``paper`` are not checked: that model is kept for results as they were.

    Raises:
        DeviceError: no word turns the phase of any weight. If some turn it by little, this is a
            :class:`~qnad_art.errors.QnadWarning`.
    """
    model = crosstalk_model(device)
    if not model.timed:
        return
    lever = find_lever(device, sites, max_pairs=max_pairs, max_turn=max_turn)
    where = f"{device.name} under the crosstalk model {model.name!r}"
    advice = (
        "Most devices with cx or ecr gates have a lever, such as ibm_nairobi; `qnad devices list` "
        "shows that of each."
    )
    if lever.strength == "none":
        raise DeviceError(
            f"Crosstalk has no lever on {where}: no word of up to {max_pairs} units turns the "
            f"phase of a weight, so there is nothing to tune. {advice}"
        )
    if lever.strength == "weak":
        message = (
            f"Crosstalk has a weak lever on {where}: up to {max_pairs} units turn the phase of a "
            f"weight by {lever.reach:.3g} rad (median over the qubits; one unit by "
            f"{lever.unit:.3g}), less than {ENOUGH:g}. Tuning can change little. {advice}"
        )
        # Shown once, although QNAD and the strategy both check: the place is the same.
        warnings.warn(message, QnadWarning, stacklevel=2)
