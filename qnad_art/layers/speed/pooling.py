"""Max-pooling of 2×2 windows as two maxima of whole tensors, which takes a tenth of the time.

On a CPU, torch compares the pixels of contiguous images one by one, and finds an index for each
window that only gradients need.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qnad_art.layers.speed.accelerated import Accelerated, is_recorded

FEWEST = 1 << 13
"""Smallest number of values for which torch's own pooling takes longer."""


class MaxPool2d(Accelerated, nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d` with the same results, faster where possible."""

    def forward(self, input: Tensor) -> Any:
        """The same as in the plain layer."""
        if not (self.accelerated and self._halves() and _suits(input)):
            return super().forward(input)
        rows = torch.maximum(input[..., ::2, :], input[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])

    def _halves(self) -> bool:
        two = (2, (2, 2))
        pairs = self.kernel_size in two and self.stride in two and self.padding in (0, (0, 0))
        return pairs and self.dilation in (1, (1, 1)) and not self.return_indices


def replace_pooling(network: nn.Module) -> None:
    """Give every max-pooling layer of ``network`` the class above."""
    for part in network.modules():
        if type(part) is nn.MaxPool2d:
            part.__class__ = MaxPool2d


def _suits(x: Tensor) -> bool:
    if is_recorded() or (torch.is_grad_enabled() and x.requires_grad):
        return False
    even = x.dim() in (3, 4) and x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0
    here = x.device.type == "cpu" and x.is_floating_point() and x.is_contiguous()
    return even and here and x.numel() >= FEWEST
