"""Whether ``torch.jit.trace`` records a pass, and what is not a tensor as a constant with it."""

from __future__ import annotations

import torch


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is recording this pass."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
