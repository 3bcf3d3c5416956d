"""The quantum-executed network: a module whose convolutions and linear layers are circuits."""

from __future__ import annotations

import glob
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError
from qnad_art.layers.kernels import Execution, Gain
from qnad_art.layers.noise_source import NoiseSource
from qnad_art.layers.quantum_layer import QuantumLayer, quantum_layers
from qnad_art.layers.speed.accelerated import Accelerated
from qnad_art.layers.speed.deferred import settled
from qnad_art.layers.tracing import is_tracing
from qnad_art.network.calibration import check_percentile, saturated, set_scales
from qnad_art.network.modes import setting
from qnad_art.network.observation import observe
from qnad_art.network.settings import ExecutionSettings
from qnad_art.placement.placement import Placement
from qnad_art.placement.plan import CrosstalkPlan, inherent_plan
from qnad_art.validation import all_finite

SHOTS_PERCENTILE = 99.5
"""Percentile of the activations that sets the scale with shots, whose noise grows with the scale.

Chosen on validation images at 1,024 and 4,096 shots: LeNet-5 on MNIST, VGG16-BN on CIFAR-100."""


class QuantumExecutedModule(nn.Module):
    """A converted network with its device, placement, crosstalk plan and noise source.

    The noise is in the module itself, so everything that runs it runs the circuits, even an attack
    that rebuilds its classifier from ``model``. Make one with :func:`qnad_art.convert`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: DeviceProfile,
        placement: Placement,
        execution: Execution,
        noise: NoiseSource,
    ) -> None:
        super().__init__()
        self.network = network
        self.device_profile = device
        self.placement = placement
        self.noise = noise
        self._execution = execution
        self._plan = inherent_plan(device, placement, self.weight_shapes)
        self._install_plan()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the noisy execution.

        ``x`` must be finite and have the shape of the plain network's inputs. Floating-point inputs
        are cast to the type of the weights, and the logits to the type of the inputs, because ART's
        are always float32.
        """
        given, x = x.dtype, self._in_own_type(x)
        if is_tracing():
            if self.shots is not None:
                raise InvalidInputError(
                    "torch.jit.trace would record a single draw of the shot noise: trace with "
                    "shots=None, or use torch.compile."
                )
        elif not all_finite(x):
            raise InvalidInputError("The input holds NaN or infinite values; clean it first.")
        with self.noise.forward_pass():
            result: Tensor = self.network(x)
            if type(result) is not Tensor:  # Compute it while the noise of this pass is at hand.
                result = settled(result)
        return result if x.dtype == given else result.to(given)

    @property
    def layers(self) -> dict[str, QuantumLayer]:
        """The quantum-executed layers by name, in the order of ``named_modules``."""
        return quantum_layers(self.network)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's products: that of the weight, or (out, J + 1) with the bias."""
        return {name: layer.product_shape for name, layer in self.layers.items()}

    @property
    def execution(self) -> Execution:
        """Response table, shots and gain in force."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self._execution = execution
        for layer in self.layers.values():
            layer.execution = execution

    @property
    def settings(self) -> ExecutionSettings:
        """How the network is executed; percentile and seed are no longer known."""
        table, placement = self._execution.table, self.placement
        shares = (layer.shot_share for layer in self.layers.values())
        return ExecutionSettings(
            device=self.device_profile,
            shots=self.shots,
            readout=table.readout,
            gain=self.gain,
            headroom=self._execution.headroom,
            bias=self._execution.bias,
            mapping=self._execution.mapping.name,
            include=[glob.escape(name) for name in self.layers],
            order=placement.order,
            compute=placement.compute,
            max_pairs=table.max_pairs,
            echo=placement.echo,
            allocation="equal" if all(share is None for share in shares) else "margin",
        )

    @property
    def shots(self) -> int | None:
        """Shots per product; ``None`` for the exact expectation."""
        return self._execution.shots

    @shots.setter
    def shots(self, shots: int | None) -> None:
        self.execution = replace(self._execution, shots=shots)

    @property
    def gain(self) -> Gain:
        """``"calibrated"`` or ``"raw"``."""
        return self._execution.gain

    @gain.setter
    def gain(self, gain: Gain) -> None:
        self.execution = replace(self._execution, gain=gain)

    @property
    def plan(self) -> CrosstalkPlan:
        """The crosstalk plan in force."""
        return self._plan

    @plan.setter
    def plan(self, plan: CrosstalkPlan) -> None:
        plan.check()
        plan.check_device(self.device_profile)
        if plan.shapes != self.weight_shapes:
            raise InvalidInputError(
                f"The plan is for another network, or for another bias than "
                f"{self._execution.bias!r}: its layers are {plan.shapes}, and those of this "
                f"network {self.weight_shapes}."
            )
        if plan.sites != self.placement.sites:
            raise InvalidInputError("The plan uses other sites than this module's placement.")
        largest = max((int(p.pairs.int().abs().max()) for p in plan.layers.values()), default=0)
        if largest > self._execution.table.max_pairs:
            raise InvalidInputError(
                f"The plan injects up to {largest} pairs; the response table ends at "
                f"{self._execution.table.max_pairs}. Convert with max_pairs={largest}."
            )
        self._plan = plan
        self._install_plan()

    def remove_crosstalk(self) -> None:
        """Install a plan without crosstalk, so that only the inherent noise remains."""
        self.plan = inherent_plan(self.device_profile, self.placement, self.weight_shapes)

    def frozen_draw(self) -> AbstractContextManager[None]:
        """Context in which every forward pass sees the same shot noise."""
        return self.noise.frozen()

    def classically(self) -> AbstractContextManager[None]:
        """Context in which the plain network runs, without circuits."""
        return setting(self.layers.values(), engine=lambda layer, x: layer.classical(x))

    def plain_execution(self) -> AbstractContextManager[None]:
        """Context without the optimisations for speed of :mod:`qnad_art.layers.speed`.

        Every layer then computes the formula of :mod:`qnad_art.layers.product_sums` as it is
        written there. Results and gradients agree within rounding, and the variance of the shot
        noise within the error of its cheaper forms (0.1 %).
        """
        parts = [part for part in self.modules() if isinstance(part, Accelerated)]
        return setting(parts, accelerated=False)

    def unsaturated_gradients(self) -> AbstractContextManager[None]:
        """Context in which gradients pass through saturated activations; outputs stay the same.

        Beyond the scale s_x an activation has no gradient, so that an attack cannot see what lies
        there. An honest attack on a network with ``percentile`` below 100 tries these gradients as
        well (backward pass differentiable approximation, Athalye et al. 2018).
        """
        return setting(self.layers.values(), unsaturated=True)

    def calibrate(
        self, x: Tensor, *, percentile: float | None = None, batch_size: int = 256
    ) -> None:
        """Set each layer's activation scale s_x from data.

        Args:
            x: inputs (N, …) of the plain network: a few hundred training images.
            percentile: percentile of |activation| that becomes the scale, in (0, 100], where 100 is
                the maximum. ``None`` means the maximum for the expectation, and
                :data:`SHOTS_PERCENTILE` with shots. Larger activations saturate. The fraction of
                the calibration data that does so is kept in ``layer.clipped``, and a
                :class:`~qnad_art.errors.ClippingWarning` names the layers where the fraction is
                larger than the percentile implies.
            batch_size: number of images per forward pass.
        """
        if percentile is None:
            percentile = 100.0 if self.shots is None else SHOTS_PERCENTILE
        check_percentile(percentile)
        x = self._in_own_type(x)
        if len(x) == 0 or not all_finite(x):
            raise InvalidInputError(
                "Calibration needs at least one input, and none with NaN or infinite values."
            )
        set_scales(self.network, x.split(batch_size), percentile)

    def clipping(self, x: Tensor, *, batch_size: int = 256) -> dict[str, float]:
        """Fraction of each layer's activations on ``x`` that saturates at the scale s_x."""
        return saturated(self.network, self._in_own_type(x).split(batch_size))

    def products(self, x: Tensor) -> dict[str, int]:
        """Number of products per image of ``x``, by layer (zero padding is not executed)."""
        image = self._in_own_type(x[:1])
        counts = observe(self.network, [image], lambda layer, value: layer.products(value))
        return {name: sum(values) for name, values in counts.items()}

    def _in_own_type(self, x: Tensor) -> Tensor:
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), x.dtype)
        return x.to(own) if x.is_floating_point() else x

    def _install_plan(self) -> None:
        for name, layer in self.layers.items():
            part = self._plan.layers[name]
            layer.assign(part.site, part.pairs)


class AveragedDraws(nn.Module):
    """Mean over ``draws`` noisy passes, for averaged prediction.

    Its gradients give expectation over transformation (Athalye et al. 2018). It is a module and not
    an option of a classifier, so that attacks keep it when they rebuild their classifier from
    ``model``.

    Args:
        module: a noisy module that returns logits (N, classes).
        draws: number of passes to average, at least 1.
        of: ``"logits"`` averages logits; ``"probabilities"`` returns the log of the mean softmax.
    """

    def __init__(
        self, module: nn.Module, draws: int, *, of: Literal["logits", "probabilities"] = "logits"
    ) -> None:
        super().__init__()
        if draws < 1:
            raise InvalidInputError(f"draws is {draws}; it must be at least 1.")
        if of not in ("logits", "probabilities"):
            raise InvalidInputError(f"of is {of!r}; it must be 'logits' or 'probabilities'.")
        self.module = module
        self.draws = draws
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        """Averaged logits (N, classes)."""
        with ExitStack() as stack:
            for module in self.modules():
                if isinstance(noise := getattr(module, "noise", None), NoiseSource):
                    stack.enter_context(noise.forward_pass())
            passes = torch.stack([self.module(x) for _ in range(self.draws)])
        if self.of == "logits":
            return passes.mean(0)
        return torch.logsumexp(passes.log_softmax(-1), 0) - torch.log(passes.new_tensor(self.draws))
