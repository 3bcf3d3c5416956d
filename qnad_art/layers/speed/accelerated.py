"""What everything here asks first: whether it may do otherwise than the plain formulas."""

from __future__ import annotations

import torch
from torch import nn


class Accelerated(nn.Module):
    """A module that takes less time for what it computes, unless this setting is ``False``."""

    accelerated = True


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` records this pass, and whatever is not a tensor as a constant."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_recorded() -> bool:
    """Whether ``torch.jit.trace`` or ``torch.compile`` records this pass."""
    return is_tracing() or torch.compiler.is_compiling()
