"""Whether a pass is being recorded: what is no tensor then stays for good as it is now."""

from __future__ import annotations

import torch


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is recording this pass."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
