"""The ART defence: QNAD as a transformer of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from art.defences.transformer.transformer import Transformer

from qnad_art.circuits.response import Readout
from qnad_art.crosstalk import Strategy, build_strategy, strategy_settings
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.errors import InvalidInputError, QnadError, UnknownNameError
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.layers.kernels import Bias, Gain
from qnad_art.network.modes import evaluating
from qnad_art.placement.placement import Order
from qnad_art.plugins.discovery import blamed_on, find_plugin
from qnad_art.validation import check_inputs, check_labels, image_range

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.placement.plan import CrosstalkPlan


class QNAD(Transformer):  # type: ignore[misc]
    """Quantum noise and regulated crosstalk as an adversarial defence (IEEE HOST 2024).

    ``fit`` finds the critical weights and makes the crosstalk plan (Algorithm 1); calling the
    defence returns a classifier that runs as circuits under that plan.

    Args:
        classifier: a trained ``PyTorchClassifier``; it is never changed.
        device: as :func:`qnad_art.device.catalogue.load_device`.
        shots: shots a product; ``None`` for the exact expectation.
        strategy: name of a crosstalk strategy (``"uniform"``, ``"random"``, ``"tuned"``) or an
            instance.
        fraction: of the weights to put under crosstalk, in [0, 1].
        attack: makes an ART attack from the noisy classifier; criticality is then ranked on its
            adversarial examples (the paper ranks after the attack). ``None``: on clean inputs.
        readout, gain, headroom, bias, percentile, include, exclude, order, compute, max_pairs: as
            :func:`qnad_art.convert`; a ``bias`` of ``None`` is what suits the strategy:
            ``"quantum"`` for ``"tuned"``, which can then move biases too, else ``"classical"``.
        allocation: of the shots: ``"margin"`` gives more to the outputs whose noise moves the
            decision most, at the same total (:func:`~.shot_allocation.allocate_shots`);
            ``"equal"`` the same to every product.
        seed: of the shot noise, and of the strategy if it takes one.
        calibration_images: how many of the inputs set the activation scales.
        **strategy_settings: of the strategy, e.g. ``pairs=2``. What ``"tuned"`` has to know of the
            images (``clip``, ``mean``, ``std``) is the classifier's, unless given.
    """

    params = [  # noqa: RUF012
        *("device", "shots", "strategy", "fraction", "attack", "readout", "gain", "headroom"),
        *("bias", "percentile"),
        *("include", "exclude", "order", "compute", "max_pairs", "allocation", "seed"),
        "calibration_images",
        "strategy_settings",
    ]

    def __init__(
        self,
        classifier: PyTorchClassifier,
        device: DeviceLike = DEFAULT_DEVICE,
        *,
        shots: int | None = None,
        strategy: str | Strategy = "uniform",
        fraction: float = 0.3,
        attack: Callable[[QuantumExecutedClassifier], EvasionAttack] | None = None,
        readout: Readout = "twirled",
        gain: Gain = "calibrated",
        headroom: float = 1.0,
        bias: Bias | None = None,
        percentile: float | None = None,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        order: Order = "stretched",
        compute: Sequence[int] | None = None,
        max_pairs: int = 8,
        allocation: Literal["margin", "equal"] = "margin",
        seed: int | None = None,
        calibration_images: int = 512,
        **strategy_settings: Any,
    ) -> None:
        super().__init__(classifier=classifier)
        self.device = device
        self.shots = shots
        self.strategy = strategy
        self.fraction = fraction
        self.attack = attack
        self.readout = readout
        self.gain = gain
        self.headroom = headroom
        self.bias = bias
        self.percentile = percentile
        self.include = include
        self.exclude = exclude
        self.order = order
        self.compute = compute
        self.max_pairs = max_pairs
        self.allocation = allocation
        self.seed = seed
        self.calibration_images = calibration_images
        self.strategy_settings = strategy_settings
        self._plan: CrosstalkPlan | None = None
        self._check_params()

    @property
    def plan(self) -> CrosstalkPlan:
        """The fitted crosstalk plan."""
        if self._plan is None:
            raise QnadError("QNAD is not fitted yet: call fit(x, y) first.")
        return self._plan

    def fit(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> None:
        """Make the crosstalk plan from training data.

        Args:
            x: inputs (N, *input_shape) to rank criticality on.
            y: labels, indices (N,) or one-hot (N, classes); ``None`` takes the classifier's own
                predictions.
        """
        if kwargs:
            raise UnknownNameError("argument of fit:", ", ".join(kwargs), ["x", "y"])
        x = check_inputs(x, self.classifier.input_shape)
        hardened = self._execute(self.classifier, x)
        # Without labels, those of the plain network; it may be asked without changing its mode.
        labels = self._own_labels(x) if y is None else np.asarray(y)
        indices = check_labels(labels, len(x), self.classifier.nb_classes).argmax(1)
        ranked_on = x
        if self.attack is not None:
            ranked_on = self.attack(hardened).generate(x, indices)
        inputs, _ = hardened._apply_preprocessing(ranked_on, y=None, fit=False)
        strategy = self._strategy()
        blame: AbstractContextManager[None] = nullcontext()
        if isinstance(self.strategy, str):
            blame = blamed_on(find_plugin("strategy", self.strategy))
        with blame:
            self._plan = strategy.plan(
                hardened.module,
                torch.as_tensor(inputs),
                torch.as_tensor(indices.astype(np.int64)),
            )
        self._is_fitted = True

    def __call__(
        self, x: np.ndarray, transformed_classifier: PyTorchClassifier
    ) -> QuantumExecutedClassifier:
        """Quantum-executed copy of ``transformed_classifier`` under the fitted plan.

        Args:
            x: inputs that set the activation scales, training images.
            transformed_classifier: the classifier to harden: the one given to the constructor, or
                another of the same architecture (uniform and random plans carry over; a tuned one
                belongs to its weights, and leaves others at chance).
        """
        hardened = self._execute(transformed_classifier, x)
        hardened.plan = self.plan
        if self.shots is not None and self.allocation == "margin":
            hardened.allocate_shots(x[: self.calibration_images])
        return hardened

    def set_params(self, **kwargs: Any) -> None:
        """Change settings; unknown ones are an error, and a changed defence must be fitted anew."""
        for name in kwargs:
            if name not in self.params:
                raise UnknownNameError("setting of QNAD:", name, self.params)
        before = {name: getattr(self, name) for name in kwargs}
        try:
            super().set_params(**kwargs)
        except BaseException:
            self.__dict__.update(before)
            raise
        self._plan, self._is_fitted = None, False

    def _check_params(self) -> None:
        load_device(self.device)
        if not isinstance(self.fraction, Real) or not 0 <= self.fraction <= 1:
            raise InvalidInputError(
                f"fraction is {self.fraction!r}; it must be a number in [0, 1]."
            )
        if self.allocation not in ("margin", "equal"):
            raise InvalidInputError(f"allocation {self.allocation!r} is not one of margin, equal.")
        if self.calibration_images < 1:
            raise InvalidInputError(
                f"calibration_images is {self.calibration_images}; it must be at least 1."
            )
        self._strategy()

    def _strategy(self) -> Strategy:
        settings = dict(self.strategy_settings)
        if isinstance(self.strategy, str):
            settings["fraction"] = self.fraction
            if self.seed is not None and "seed" in strategy_settings(self.strategy):
                settings["seed"] = self.seed
            if "max_pairs" in strategy_settings(self.strategy):
                settings["max_pairs"] = self.max_pairs
            if "clip" in strategy_settings(self.strategy):
                settings = {**image_range(self.classifier), **settings}
        return build_strategy(self.strategy, **settings)

    def _own_labels(self, x: np.ndarray) -> np.ndarray:
        with evaluating(self.classifier.model):
            labels: np.ndarray = self.classifier.predict(x)
        return labels

    def _execute(self, classifier: PyTorchClassifier, x: np.ndarray) -> QuantumExecutedClassifier:
        """``classifier`` as circuits, inherent noise only."""
        suits: Bias = getattr(self._strategy(), "bias", "classical")
        return QuantumExecutedClassifier.from_art(
            classifier,
            x[: self.calibration_images],
            device=self.device,
            shots=self.shots,
            readout=self.readout,
            gain=self.gain,
            headroom=self.headroom,
            bias=self.bias or suits,
            percentile=self.percentile,
            include=self.include,
            exclude=self.exclude,
            order=self.order,
            compute=self.compute,
            max_pairs=self.max_pairs,
            seed=self.seed,
        )
