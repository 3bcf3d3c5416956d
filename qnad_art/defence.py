"""The ART defence: QNAD as a transformer of classifiers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art.defences.transformer.transformer import Transformer

from qnad_art.crosstalk import Strategy, build_strategy, taken, traits
from qnad_art.crosstalk.criticality import FRACTION
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.errors import InvalidInputError, QnadError, UnknownNameError
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.network.modes import evaluating
from qnad_art.network.settings import SETTINGS, ExecutionSettings
from qnad_art.placement.placement import device_placement
from qnad_art.plugins.discovery import blamed_on, find_plugin
from qnad_art.validation import check_inputs, check_labels, image_range

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

    from qnad_art.placement.plan import CrosstalkPlan

CALIBRATION_IMAGES = 512
"""How many training images set the activation scales."""


class QNAD(Transformer):  # type: ignore[misc]
    """Quantum noise and regulated crosstalk as an adversarial defence (IEEE HOST 2024).

    ``fit`` finds the critical weights and makes the crosstalk plan (Algorithm 1). Calling the
    defence returns a classifier that runs as circuits under that plan.

    Args:
        classifier: a trained ``PyTorchClassifier``; it never changes.
        device: see :func:`qnad_art.device.catalogue.load_device`.
        settings: settings of the execution; ``None`` means the defaults.
        strategy: name of a crosstalk strategy (``"uniform"``, ``"paper"``, ``"random"``,
            ``"tuned"``) or an instance.
        fraction: fraction of the weights to put under crosstalk, in [0, 1].
        attack: makes an ART attack from the noisy classifier. Criticality is then ranked on its
            adversarial examples (the paper ranks after the attack), and with ``None`` on clean
            inputs.
        calibration_images: how many of the inputs set the activation scales.
        start: a hardened classifier with the weights of ``classifier``, from whose crosstalk tuning
            starts, carried to ``device`` (:meth:`~qnad_art.QuantumExecutedClassifier.on`). All
            settings of the execution but device and shots are then its own.
        **changes: settings of the execution by name (``shots=1024``), which override those of
            ``settings``; see :class:`~qnad_art.network.settings.ExecutionSettings`. All others are
            settings of the strategy, such as ``pairs=2``. If a strategy has settings for the seed,
            ``max_pairs`` or the images (``clip``, ``mean``, ``std``) that are not given, they are
            taken from the execution and the classifier.
    """

    params = [  # noqa: RUF012
        *SETTINGS,
        *("settings", "strategy", "fraction", "attack", "calibration_images", "strategy_settings"),
    ]

    settings: ExecutionSettings
    _strategy: Strategy

    def __init__(
        self,
        classifier: PyTorchClassifier,
        device: DeviceLike | None = None,
        *,
        settings: ExecutionSettings | None = None,
        strategy: str | Strategy = "uniform",
        fraction: float = FRACTION,
        attack: Callable[[QuantumExecutedClassifier], EvasionAttack] | None = None,
        calibration_images: int = CALIBRATION_IMAGES,
        start: QuantumExecutedClassifier | None = None,
        **changes: Any,
    ) -> None:
        super().__init__(classifier=classifier)
        self.start = start
        execution = {name: changes.pop(name) for name in SETTINGS if name in changes}
        if device is not None:
            execution["device"] = device
        asked = ExecutionSettings.of(settings, **execution)
        self.settings = asked.preferring({"allocation": "margin"})
        self.strategy = strategy
        self.fraction = fraction
        self.attack = attack
        self.calibration_images = calibration_images
        self.strategy_settings = changes
        self._plan: CrosstalkPlan | None = None
        self._check_params()

    def __getattr__(self, name: str) -> Any:
        """A setting of the execution: ART reads its ``params`` as attributes."""
        if name in SETTINGS and "settings" in self.__dict__:
            return getattr(self.settings, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SETTINGS:
            name, value = "settings", replace(self.settings, **{name: value})
        super().__setattr__(name, value)

    @property
    def execution(self) -> ExecutionSettings:
        """How the network is executed: the settings, with the strategy's preferences."""
        if self.start is not None:
            own = self.start.module.settings
            names = ("device", "shots", "allocation", "seed", "percentile")
            return replace(own, **{name: getattr(self.settings, name) for name in names})
        return self.settings.preferring(traits(self._strategy).prefers)

    @property
    def plan(self) -> CrosstalkPlan:
        """The fitted crosstalk plan."""
        if self._plan is None:
            raise QnadError("QNAD is not fitted yet: call fit(x, y) first.")
        return self._plan

    def fit(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> None:
        """Make the crosstalk plan from training data.

        Args:
            x: inputs (N, *input_shape) on which criticality is ranked.
            y: labels, indices (N,) or one-hot (N, classes); ``None`` takes the classifier's own
                predictions.
        """
        if kwargs:
            raise UnknownNameError("argument of fit:", ", ".join(kwargs), ["x", "y"])
        x = check_inputs(x, self.classifier.input_shape)
        self._check_device()
        hardened = self._execute(self.classifier, x)
        if self.start is not None:
            _check_same_weights(self.start, hardened)
            hardened.plan = self.start.on(hardened.module.device_profile).plan
        if y is None:
            with evaluating(self.classifier.model):  # ART would leave the network in eval mode.
                y = self.classifier.predict(x)
        indices = check_labels(np.asarray(y), len(x), self.classifier.nb_classes).argmax(1)
        ranked_on = x
        if self.attack is not None:
            ranked_on = self.attack(hardened).generate(x, indices)
        inputs, _ = hardened._apply_preprocessing(ranked_on, y=None, fit=False)
        blame: AbstractContextManager[None] = nullcontext()
        if isinstance(self.strategy, str):
            blame = blamed_on(find_plugin("strategy", self.strategy))
        with blame:
            self._plan = self._strategy.plan(
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
            x: inputs that set the activation scales: training images.
            transformed_classifier: the classifier to harden: that of the constructor, or another of
                the same architecture. Uniform and random plans carry over to others; a tuned plan
                belongs to its weights, and accuracy with others falls to chance.
        """
        hardened = self._execute(transformed_classifier, x)
        hardened.plan = self.plan
        if self.settings.shots is not None and self.settings.allocation == "margin":
            hardened.allocate_shots(x[: self.calibration_images])
        return hardened

    def set_params(self, **kwargs: Any) -> None:
        """Change settings, after which the defence must be fitted again."""
        for name in kwargs:
            if name not in self.params:
                raise UnknownNameError("setting of QNAD:", name, self.params)
        before = dict(self.__dict__)
        try:
            super().set_params(**kwargs)
        except BaseException:
            self.__dict__.update(before)
            raise
        self._plan, self._is_fitted = None, False

    def _check_params(self) -> None:
        load_device(self.settings.device)
        if not isinstance(self.fraction, Real) or not 0 <= self.fraction <= 1:
            raise InvalidInputError(
                f"fraction is {self.fraction!r}; it must be a number in [0, 1]."
            )
        if self.calibration_images < 1:
            raise InvalidInputError(
                f"calibration_images is {self.calibration_images}; it must be at least 1."
            )
        self._strategy = self._built()

    def _check_device(self) -> None:
        """Let the strategy refuse the device, before its response takes minutes to compute."""
        check = getattr(self._strategy, "check_device", None)
        if check is not None:
            settings, device = self.settings, load_device(self.settings.device)
            place = device_placement(device, compute=settings.compute, order=settings.order)
            check(device, place.sites)

    def _built(self) -> Strategy:
        settings = dict(self.strategy_settings)
        if isinstance(self.strategy, str):
            pairs = self.settings.pairs_on(load_device(self.settings.device))
            offered = {**image_range(self.classifier), "max_pairs": pairs}
            if self.settings.seed is not None:
                offered["seed"] = self.settings.seed
            filled = taken(self.strategy, **offered)
            settings = {**filled, **settings, "fraction": self.fraction}
        return build_strategy(self.strategy, **settings)

    def _execute(self, classifier: PyTorchClassifier, x: np.ndarray) -> QuantumExecutedClassifier:
        """``classifier`` as circuits with their inherent noise only."""
        settings = replace(self.execution, allocation=None)  # Shots are allocated under the plan.
        return QuantumExecutedClassifier.from_art(
            classifier, x[: self.calibration_images], settings=settings
        )


def _check_same_weights(start: QuantumExecutedClassifier, made: QuantumExecutedClassifier) -> None:
    before, now = (c.module.network.state_dict() for c in (start, made))
    if before.keys() != now.keys() or not all(
        torch.equal(before[name].cpu(), now[name].cpu()) for name in before
    ):
        raise InvalidInputError(
            "start has other weights than classifier; tuned crosstalk belongs to its weights."
        )
