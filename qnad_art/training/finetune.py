"""Adversarial fine-tuning of the weights: the control for tuned crosstalk, at the same budget.

The loop, the attack, the steps and the choice of the epoch are those of
:class:`~qnad_art.crosstalk.tuned.Tuned`; only what is optimised differs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from qnad_art.errors import InvalidInputError
from qnad_art.training.adversarial import AdversarialSettings, split_validation
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.execution import execution_of

Network = TypeVar("Network", bound=nn.Module)


def adversarial_finetune(
    network: Network, x: Tensor, y: Tensor, settings: AdversarialSettings
) -> Network:
    """Copy ``network`` and train all its parameters against attacks.

    Everything runs in eval mode: batch norm keeps its statistics and dropout is off, as in tuning
    crosstalk. A quantum-executed module is trained through its noise and crosstalk and keeps its
    activation scales.

    Args:
        network: any module returning logits (N, classes), plain or quantum-executed; it is left as
            it is. The copy has its modes and its ``requires_grad``.
        x: images (N, …) in the range of ``settings.clip``.
        y: class indices (N,), int64.
        settings: of the run. Weights take a far lower learning rate than crosstalk, 1e-4 to 1e-3.

    Returns:
        The copy, with the parameters of the best epoch.
    """
    loop = finetuning_loop(network, x, y, settings)
    best = loop.run()
    tuned: Network = loop.network  # type: ignore[assignment]
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            parameter.copy_(best[name])
            parameter.grad = None
    for mine, original in zip(tuned.parameters(), network.parameters(), strict=True):
        mine.requires_grad_(original.requires_grad)
    return tuned


def finetuning_loop(
    network: nn.Module, x: Tensor, y: Tensor, settings: AdversarialSettings
) -> AdversarialLoop:
    """The optimisation of :func:`adversarial_finetune`, on a copy of ``network``, ready to run."""
    if next(network.parameters(), None) is None:
        raise InvalidInputError("The network has no parameters to fine-tune.")
    training, validation = split_validation(x, y, settings)
    network = copy.deepcopy(network).requires_grad_(True)
    return AdversarialLoop(network, _Weights(network), training, validation, settings)


class _Weights:
    """The unknowns: all parameters of the network, wherever they are used."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters: Mapping[str, Tensor] = dict(network.named_parameters())
        self.execution = execution_of(network)

    @contextmanager
    def optimising(self) -> Iterator[None]:
        """Nothing to prepare: the network computes with its parameters."""
        yield

    def project(self) -> None:
        """Every value is allowed."""

    def install(self) -> None:
        """They are in the network."""

    def result(self) -> dict[str, Tensor]:
        """Copies of the parameters."""
        return {name: tensor.detach().clone() for name, tensor in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """The parameters."""
        return dict(self.parameters)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[name])
