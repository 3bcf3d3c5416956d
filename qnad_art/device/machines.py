"""Which machines still run: a snapshot is always of the past, its machine may be retired.

As of October 2026. Sources: IBM, https://quantum.cloud.ibm.com/computers (machines that take
jobs), https://quantum.cloud.ibm.com/docs/guides/retired-qpus (machines with their last day), and
https://quantum.cloud.ibm.com/docs/guides/changelog-quantum-compute-service (April 2026: the last
of the Eagle processors, those with ecr gates, are retired).
"""

from __future__ import annotations

from typing import Literal

AS_OF = "October 2026"
LIVE = frozenset(
    {"ibm_aachen", "ibm_berlin", "ibm_boston", "ibm_fez", "ibm_kingston"}
    | {"ibm_marrakesh", "ibm_miami", "ibm_pittsburgh"}
)
"""Machines that take jobs and of which there is a snapshot."""
MODELS = frozenset({"ideal", "ibm_fractional", "ibm_nighthawk"})
"""Devices that are not a machine: Qiskit made up their coupling or their errors."""


def machine_state(name: str) -> Literal["live", "retired", "model", "unknown"]:
    """State of the machine behind a device name; ``unknown`` for devices that are not IBM's."""
    if name in MODELS:
        return "model"
    if name in LIVE:
        return "live"
    return "retired" if name.startswith("ibm_") else "unknown"
