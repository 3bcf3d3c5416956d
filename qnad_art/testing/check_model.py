"""Conformance suite for networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from qnad_art.benchmark.threats.victim import seeded
from qnad_art.device.profile import DeviceProfile
from qnad_art.models.architectures import Architecture, ModelEntry
from qnad_art.network.conversion import convert
from qnad_art.testing.checks import (
    Suite,
    expect,
    expect_name,
    expect_numbers,
    expect_type,
    name_of,
    registered,
)
from qnad_art.testing.specimens import random_tensor
from qnad_art.training.standard import TrainSettings

OTHER_CLASSES = 3


@dataclass(frozen=True)
class _Case:
    """The entry of a network."""

    entry: ModelEntry
    name: str | None

    def network(self, architecture: Architecture | None = None, *, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return self.entry.build(architecture or self.entry.usual)

    def images(self, count: int = 2) -> torch.Tensor:
        usual = self.entry.usual
        return random_tensor(count, usual.in_channels, usual.image_size, usual.image_size)


def is_a_model_entry(case: _Case) -> None:
    """The model is a ModelEntry with its registered name and valid training settings."""
    expect_type(case.entry, ModelEntry)
    expect_name(case.entry.usual.name, case.name)
    TrainSettings(**case.entry.training)


def maps_images_to_logits(case: _Case) -> None:
    """Images N×C×H×W in [0, 1] give finite logits N×K, also for another number of classes."""
    usual = case.entry.usual
    for architecture in (usual, replace(usual, num_classes=OTHER_CLASSES)):
        network = case.network(architecture).eval()
        with torch.no_grad():
            outputs = network(case.images()).numpy()
        expect_numbers(outputs, (2, architecture.num_classes))


def images_do_not_mix(case: _Case) -> None:
    """In eval mode, logits are deterministic and do not depend on the rest of the batch."""
    network, x = case.network().eval(), case.images()
    with torch.no_grad():
        together, alone = network(x)[:1], network(x[:1])
    difference = float((together - alone).abs().max())
    scale = float(together.abs().max()) + 1e-6
    expect(
        difference <= 1e-3 * scale,
        found=f"logits that differ by {difference:.3g} with other images in the batch",
        expected="the same logits",
    )


def weights_follow_the_seed(case: _Case) -> None:
    """Weights are drawn from torch's global generator, which ``build_model`` seeds."""
    one, same, other = (case.network(seed=seed).state_dict() for seed in (0, 0, 1))
    expect(
        all(value.equal(same[name]) for name, value in one.items()),
        found="different weights from the same seed",
        expected="the same",
    )
    expect(
        any(not value.equal(other[name]) for name, value in one.items()),
        found="the same weights from two seeds",
        expected="weights that depend on the seed",
    )


def weights_carry_over(case: _Case) -> None:
    """A second network with the same ``state_dict`` computes the same logits."""
    one, other, x = case.network(seed=0).eval(), case.network(seed=1).eval(), case.images(1)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        difference = float((one(x) - other(x)).abs().max())
    expect(
        difference == 0,
        found=f"logits that differ by {difference:.3g} after load_state_dict",
        expected="the same logits: all that is learned or drawn is a parameter or a buffer",
    )


def runs_as_circuits(case: _Case) -> None:
    """Every layer runs as circuits, which without noise give the logits of the plain network."""
    network, x = case.network().eval(), case.images()
    module = convert(network, device=DeviceProfile.ideal(), seed=0)
    missed = sorted(module.layers.keys() - module.products(x).keys())
    expect(
        not missed,
        found=f"the layers {missed}, which the forward pass never calls",
        expected="layers that are called as modules: self.layer(x)",
    )
    module.calibrate(x)
    with torch.no_grad():
        plain, quantum = network(x), module(x)
    difference = float((plain - quantum).abs().max())
    scale = float(plain.abs().max()) + 1e-6
    expect(
        difference <= 1e-3 * scale,
        found=f"logits that differ by {difference:.3g} of {scale:.3g} on the ideal device",
        expected="those of the plain network",
    )


SUITE: Suite[_Case] = Suite("model")


@SUITE.run_on
def check_model(model: str | ModelEntry) -> _Case:
    """Check a network at its usual size.

    Args:
        model: registered name or entry.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    return _Case(registered("model", model), name_of(model))
