"""Settings of the engine, from keyword arguments or from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qnad_art.errors import InvalidInputError

PREFIX = "QNAD_IBM_"
"""Of environment variables: ``QNAD_IBM_BACKEND``, ``QNAD_IBM_MAX_SHOTS``, …"""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class RuntimeSettings(BaseModel):
    """How circuits are sent. Accounts are qiskit-ibm-runtime's own: no token is taken here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str | None = None
    """Name of the device; ``fake_nairobi`` and its like run locally, with the snapshot's noise."""
    mode: Literal["batch", "session", "job"] = "batch"
    """How jobs of one call are sent: as a batch, in a session of their own, or each by itself."""
    max_time: Count | None = None
    """Seconds after which the service ends a batch or session; ``None``: its own limit."""
    max_shots: Count = 1_000_000
    """Refuse to send more shots than this in the engine's life."""
    side_by_side: Count | None = None
    """Products on the device at once, at most; ``None``: as many as fit."""
    shots_a_job: Count = 1_000_000
    """Shots of one job, unless a single circuit needs more; the service takes 10 million."""
    rep_delay: Seconds | None = None
    """Seconds between shots; ``None``: the device's default."""
    attempts: Count = 6
    """How often a request is made, and a job that failed is sent, before giving up."""
    backoff: Seconds = 2.0
    """Seconds before the second attempt; doubled each time, up to a minute."""
    jobs_file: Path | None = None
    """JSON file that keeps job ids, so that another process can fetch what this one has sent."""

    @classmethod
    def of(cls, **given: Any) -> RuntimeSettings:
        """Settings as given; those that are not are read from the environment.

        Raises:
            InvalidInputError: a setting is unknown or its value cannot be used.
        """
        variables = {
            name: os.environ[PREFIX + name.upper()]
            for name in cls.model_fields
            if PREFIX + name.upper() in os.environ
        }
        try:
            return cls.model_validate({**variables, **given})
        except ValidationError as error:
            faults = "; ".join(f"{_name(fault)}: {fault['msg']}" for fault in error.errors())
            raise InvalidInputError(
                f"Settings of engine ibm-runtime: {faults}. Valid: {', '.join(cls.model_fields)}, "
                f"also as {PREFIX}… in the environment."
            ) from error


def _name(fault: Any) -> str:
    return ".".join(map(str, fault["loc"]))
