"""Whether ``torch.jit.trace`` records a pass, and with it whatever is not a tensor as a constant."""

from __future__ import annotations

import torch


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is recording this pass."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
