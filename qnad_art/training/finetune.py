"""Adversarial fine-tuning of the weights: the control for tuned crosstalk, at the same budget.

The loop, the attack, the steps and the choice of the best epoch are those of
:class:`~qnad_art.crosstalk.tuned.Tuned`; only the unknowns differ.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from qnad_art.errors import InvalidInputError
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.training.adversarial import AdversarialSettings, split_validation
from qnad_art.training.adversarial_loop import AdversarialLoop
from qnad_art.training.execution import Circuits, Plain

Network = TypeVar("Network", bound=nn.Module)


def adversarial_finetune(
    network: Network, x: Tensor, y: Tensor, settings: AdversarialSettings
) -> Network:
    """Copy ``network`` and train all its parameters against attacks.

    The network stays in eval mode: batch norm keeps its statistics and dropout is off, as when
    crosstalk is tuned. A quantum-executed module is trained through its noise and crosstalk, and
    its activation scales do not change.

    Args:
        network: any module that returns logits (N, classes), plain or quantum-executed. It does not
            change. The copy keeps its modes and its ``requires_grad`` flags.
        x: images (N, …) in the range of ``settings.clip``.
        y: class indices (N,), int64.
        settings: settings of the run. Weights need a much lower learning rate than crosstalk:
            1e-4 to 1e-3.

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
    """Prepare the optimisation of :func:`adversarial_finetune` on a copy of ``network``."""
    if next(network.parameters(), None) is None:
        raise InvalidInputError("The network has no parameters to fine-tune.")
    training, validation = split_validation(x, y, settings)
    network = copy.deepcopy(network).requires_grad_(True)
    return AdversarialLoop(network, _Weights(network), training, validation, settings)


class _Weights:
    """The unknowns of fine-tuning: all parameters of the network."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters: Mapping[str, Tensor] = dict(network.named_parameters())
        self.execution: Plain = Plain()
        if isinstance(network, QuantumExecutedModule):
            self.execution = Circuits(network)

    def optimising(self) -> AbstractContextManager[None]:
        return nullcontext()  # The network computes with its parameters anyway.

    def project(self) -> None:
        """Do nothing: every value is allowed."""

    def install(self) -> None:
        """Do nothing: the values are already in the network."""

    def result(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.parameters.items()}

    def state(self) -> Mapping[str, Tensor]:
        return self.parameters

    def restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[name])
