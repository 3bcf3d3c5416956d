"""Networks as users write them, in a file of their own."""

SOURCE = '''
"""Networks of digits."""

import torch
from torch import nn

from qnad_art.models import Architecture, ModelEntry


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3)
        self.output = nn.Linear(2 * 36, 10)

    def forward(self, x):
        return self.output(torch.relu(self.convolution(x)).flatten(1))


def build(architecture):
    pixels = architecture.in_channels * architecture.image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, architecture.num_classes))


FLAT = ModelEntry(
    Architecture("flat", num_classes=10, in_channels=1, image_size=12),
    build,
    {"epochs": 3, "learning_rate": 0.1},
)
MADE = Net()
NUMBER = 3


def other_shape():
    return nn.Flatten()


def nothing():
    return None


def fails():
    raise RuntimeError("no such layer")


def leaves():
    raise SystemExit
'''


def write_networks(folder, more=""):
    """The file of networks in ``folder``."""
    path = folder / "nets.py"
    path.write_text(SOURCE + more)
    return path
