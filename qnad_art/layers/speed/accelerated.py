"""The one setting of everything here: whether a module is accelerated."""

from __future__ import annotations

from torch import nn


class Accelerated(nn.Module):
    """A module that takes less time for what it computes; where it is told not to, it is plain."""

    accelerated = True
