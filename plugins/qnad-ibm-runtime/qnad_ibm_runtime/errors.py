"""What can go wrong between here and the device."""

from __future__ import annotations

from qnad_art.errors import QnadError


class CostError(QnadError, ValueError):
    """More shots would be sent than ``max_shots`` allows; nothing was."""


class JobError(QnadError, RuntimeError):
    """A job could not be sent, failed, or could not be fetched."""
