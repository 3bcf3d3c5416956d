"""The ART estimator: a classifier whose inference is noisy quantum circuits.

The noise is in the ``nn.Module`` and not in overrides, so it affects every ART attack, including
those that rebuild a plain ``PyTorchClassifier`` from ``model``. The overrides only check inputs,
save work, and support copies and pickles.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from qnad_art.crosstalk.carried import GainOnward, WordsOnward, carried
from qnad_art.device.catalogue import DeviceLike, device_names, load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import InvalidInputError, QnadError, QnadWarning
from qnad_art.layers.kernels import Gain
from qnad_art.network.conversion import ConversionReport, conversion_report, convert
from qnad_art.network.modes import without_weight_gradients
from qnad_art.network.module import AveragedDraws, QuantumExecutedModule
from qnad_art.network.settings import ExecutionSettings
from qnad_art.placement.plan import CrosstalkPlan
from qnad_art.storage import load_classifier, save_classifier
from qnad_art.validation import check_inputs, check_labels


class QuantumExecutedClassifier(PyTorchClassifier):  # type: ignore[misc]
    """``PyTorchClassifier`` of a quantum-executed module, with the same arguments.

    Most users get one from :meth:`from_art` or :class:`qnad_art.QNAD`.

    Args:
        model: result of :func:`qnad_art.convert`, or an :class:`~qnad_art.AveragedDraws` around
            one. An ``nn.Sequential`` is refused, because ART would run its children and skip its
            forward.
        loss, input_shape, nb_classes, …: see ``PyTorchClassifier``.
        shots, gain: override the module's settings if given.
    """

    estimator_params = [*PyTorchClassifier.estimator_params, "shots", "gain"]  # noqa: RUF012

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        input_shape: tuple[int, ...],
        nb_classes: int,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        shots: int | Literal["keep"] | None = "keep",
        gain: Gain | None = None,
        **settings: Any,
    ) -> None:
        _quantum_part(model)
        super().__init__(model, loss, input_shape, nb_classes, optimizer=optimizer, **settings)
        if shots != "keep":
            self.shots = shots
        if gain is not None:
            self.gain = gain

    @classmethod
    def from_art(
        cls,
        classifier: PyTorchClassifier,
        x: np.ndarray,
        *,
        settings: ExecutionSettings | None = None,
        **changes: Any,
    ) -> QuantumExecutedClassifier:
        """Quantum-executed copy of a trained ART classifier.

        Args:
            classifier: a trained classifier. Its model is copied, and its preprocessing, clip
                values and loss are kept. The copy has no optimizer; set one to train it through the
                noise.
            x: inputs (N, *input_shape) that set the activation scales: a few hundred training
                images.
            settings, **changes: see :func:`qnad_art.convert`.
        """
        if not isinstance(classifier, PyTorchClassifier):
            raise InvalidInputError(
                f"classifier is a {type(classifier).__name__}; QNAD needs an ART PyTorchClassifier "
                "(for a bare torch module, use qnad_art.convert or wrap it in one)."
            )
        inputs = check_inputs(x, classifier.input_shape)
        inputs, _ = classifier._apply_preprocessing(inputs, y=None, fit=False)
        settings = ExecutionSettings.of(settings, **changes)
        module = convert(classifier.model, inputs, settings=replace(settings, allocation=None))
        made = cls._like(classifier, module)
        if settings.allocation == "margin" and settings.shots is not None:
            made.allocate_shots(x)
        return made

    @classmethod
    def _like(cls, classifier: PyTorchClassifier, model: nn.Module) -> QuantumExecutedClassifier:
        """A classifier of ``model`` with everything else from ``classifier``."""
        return cls(
            model,
            copy.deepcopy(classifier.loss),
            classifier.input_shape,
            classifier.nb_classes,
            channels_first=classifier.channels_first,
            clip_values=classifier.clip_values,
            preprocessing_defences=copy.copy(classifier.preprocessing_defences),
            postprocessing_defences=copy.copy(classifier.postprocessing_defences),
            preprocessing=classifier.preprocessing,
            device_type="gpu" if classifier.device.type == "cuda" else "cpu",
        )

    @property
    def module(self) -> QuantumExecutedModule:
        """The quantum-executed module inside ``model``."""
        return _quantum_part(self.model)

    @property
    def bare_module(self) -> QuantumExecutedModule:
        """The :attr:`module`, if there is nothing around it except averaging over draws.

        Raises:
            InvalidInputError: the module is part of other code.
        """
        module: nn.Module = self.model
        while isinstance(module, AveragedDraws | nn.DataParallel):
            module = module.module
        if isinstance(module, QuantumExecutedModule):
            return module
        raise InvalidInputError(
            f"model is a {type(module).__name__} around a quantum-executed module: it can be "
            "attacked, predict and train, but it cannot be saved or have its shots allocated. "
            "Convert the whole model, qnad_art.convert(model, x), or pass (mean, std) as "
            "preprocessing."
        )

    @property
    def shots(self) -> int | None:
        """Shots per product; ``None`` for the exact expectation."""
        return self.module.shots

    @shots.setter
    def shots(self, shots: int | None) -> None:
        self.module.shots = shots

    @property
    def gain(self) -> Gain:
        """``"calibrated"`` or ``"raw"``, see :class:`~qnad_art.layers.kernels.Execution`."""
        return self.module.gain

    @gain.setter
    def gain(self, gain: Gain) -> None:
        self.module.gain = gain

    @property
    def plan(self) -> CrosstalkPlan:
        """The crosstalk plan in force."""
        return self.module.plan

    @plan.setter
    def plan(self, plan: CrosstalkPlan) -> None:
        self.module.plan = plan

    def reseed(self, seed: int | None = None) -> None:
        """Restart the shot noise from ``seed``."""
        self.module.noise.reseed(seed)

    def allocate_shots(self, x: np.ndarray) -> None:
        """Divide the shots among the layers' outputs by their effect on the decision.

        ``x`` are a few hundred training images; see :func:`~.shot_allocation.allocate_shots`.
        """
        from qnad_art.engines.shot_allocation import allocate_shots

        inputs, _ = self._apply_preprocessing(check_inputs(x, self.input_shape), y=None, fit=False)
        allocate_shots(self.bare_module, torch.as_tensor(inputs))

    def frozen_draw(self) -> AbstractContextManager[None]:
        """Context with the same shot noise in every pass, for attacks that compare passes."""
        return self.module.frozen_draw()

    def averaged(
        self, draws: int, *, of: Literal["logits", "probabilities"] = "logits"
    ) -> QuantumExecutedClassifier:
        """This classifier with every pass averaged over ``draws``, for prediction or for attacks.

        An attack on the result uses expectation over transformation. The result shares the module
        and its noise with this classifier.
        """
        model = self.model.module if isinstance(self.model, AveragedDraws) else self.model
        return self._like(self, AveragedDraws(model, draws, of=of))

    def on(
        self,
        device: DeviceLike,
        *,
        words: WordsOnward = "re-encoded",
        gain: GainOnward = "recalibrated",
    ) -> QuantumExecutedClassifier:
        """This classifier on another calibration of its device, or on another device.

        The crosstalk is chosen anew for the same effective weights, or kept gate for gate; see
        :func:`~qnad_art.crosstalk.carried.carried`. A :class:`~qnad_art.errors.QnadWarning` says
        how many weights lost their crosstalk, and what the device lacks.
        """
        made = carried(self.bare_module, device, words=words, gain=gain)
        if made.gone:
            warnings.warn(
                f"{made.module.device_profile.name} lacks {', '.join(made.gone)}: {made.lost:,} of "
                f"{made.words:,} weights have no crosstalk any more.",
                QnadWarning,
                stacklevel=2,
            )
        return self._like(self, made.module)

    def report(self) -> ConversionReport:
        """Which layers are quantum-executed, and the number of products per image."""
        return conversion_report(self.module, torch.zeros((1, *self.input_shape)))

    def predict(
        self, x: np.ndarray, batch_size: int = 128, training_mode: bool = False, **kwargs: Any
    ) -> np.ndarray:
        """Logits (N, nb_classes) for inputs (N, *input_shape)."""
        x = check_inputs(x, self.input_shape)
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), dtype=np.float32)
        result: np.ndarray = super().predict(x, batch_size, training_mode, **kwargs)
        return result

    def fit(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        """Train the weights through the noisy execution; see ``PyTorchClassifier.fit``."""
        x = check_inputs(x, self.input_shape)
        if len(x) == 0:
            raise InvalidInputError("There is nothing to fit on: the input is empty.")
        y = check_labels(y, len(x), self.nb_classes)
        if self._optimizer is None:
            raise InvalidInputError(
                "Training needs an optimizer: set_params(optimizer=torch.optim.SGD("
                "classifier.model.parameters(), lr=0.01)) first."
            )
        super().fit(x, y, **kwargs)

    def loss_gradient(
        self,
        x: np.ndarray | Tensor,
        y: np.ndarray | Tensor,
        training_mode: bool = False,
        **kwargs: Any,
    ) -> np.ndarray | Tensor:
        """∂loss/∂x through the noisy execution, in the type and shape of ``x``."""
        x = check_inputs(x, self.input_shape)
        y = check_labels(y, len(x), self.nb_classes)
        with without_weight_gradients(self.model):
            result: np.ndarray | Tensor = super().loss_gradient(x, y, training_mode, **kwargs)
        return result

    def class_gradient(
        self, x: np.ndarray, label: Any = None, training_mode: bool = False, **kwargs: Any
    ) -> np.ndarray:
        """∂logit/∂x, (N, nb_classes or 1, *input_shape), with one noise draw for all classes."""
        x = check_inputs(x.detach().cpu() if isinstance(x, Tensor) else x, self.input_shape)
        x = np.asarray(x)
        with without_weight_gradients(self.model):
            result: np.ndarray = super().class_gradient(x, label, training_mode, **kwargs)
        return result

    def compute_loss(
        self, x: np.ndarray | Tensor, y: np.ndarray | Tensor, reduction: str = "none", **kwargs: Any
    ) -> np.ndarray | Tensor:
        """Loss of each input (N,), or their reduction, in the type of ``x``."""
        x = check_inputs(x, self.input_shape)
        y = check_labels(y, len(x), self.nb_classes)
        result: np.ndarray | Tensor = super().compute_loss(x, y, reduction, **kwargs)
        return result

    def set_params(self, **kwargs: Any) -> None:
        """Set attributes as in ART, and wrap a new ``model`` again, which ART does not."""
        model = kwargs.pop("model", None)
        before: nn.Module = self.model
        if model is not None:  # This comes first, because shots and gain belong to the module.
            self._install(model)
        try:
            super().set_params(**kwargs)
        except BaseException:
            self._install(before)
            raise

    def _install(self, model: nn.Module) -> None:
        _quantum_part(model)
        self._model = self._make_model_wrapper(model).to(self._device)

    def _apply_preprocessing(self, x: Any, y: Any, fit: bool = False, **kwargs: Any) -> Any:
        x, y = super()._apply_preprocessing(x, y, fit, **kwargs)
        # Some of ART's preprocessors convert to float64 under NumPy 2.
        return (x.astype(np.float32) if isinstance(x, np.ndarray) else x), y

    def save(self, filename: str, path: str | None = None) -> None:
        """Save to the folder ``path/filename`` (safetensors and JSON); see :meth:`load`."""
        save_classifier(self, Path(path or ".") / filename)

    @classmethod
    def load(
        cls, directory: str | Path, *, model: nn.Module | None = None, **settings: Any
    ) -> QuantumExecutedClassifier:
        """Load a folder that :meth:`save` wrote; it runs on the calibration that was saved.

        A :class:`~qnad_art.errors.QnadWarning` says if the device has been calibrated again since.

        Args:
            directory: the folder.
            model: an instance of the plain network. It is required unless the network came from
                :func:`qnad_art.models.architectures.build_model`, because code is never stored.
            **settings: arguments of the constructor (``optimizer``, ``device_type``, …).

        Raises:
            ArtifactError: files are missing, damaged or foreign, or ``model`` does not fit.
        """
        loaded = load_classifier(cls, Path(directory), model=model, **settings)
        _warn_if_recalibrated(loaded.module.device_profile)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle and deepcopy; ART's own method writes files named by the time."""
        state = self.__dict__.copy()
        del state["_model_wrapper"], state["_model"]
        state["_device"] = str(self._device)
        state["inner_model"] = self.model
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        model = state.pop("inner_model")
        self.__dict__.update(state)
        self._device = torch.device(state["_device"])
        self._model = self._make_model_wrapper(model)


def _quantum_part(model: nn.Module) -> QuantumExecutedModule:
    """The quantum-executed module in ``model``; raises if it is missing or ART would bypass it."""
    if isinstance(model, nn.Module) and not isinstance(model, nn.Sequential):
        for part in model.modules():
            if isinstance(part, QuantumExecutedModule):
                return part
    raise InvalidInputError(
        f"model is a {type(model).__name__} without quantum execution at its top; make one with "
        "qnad_art.convert(model, x), or use QuantumExecutedClassifier.from_art(classifier, x)."
    )


def _warn_if_recalibrated(saved: DeviceProfile) -> None:
    """Warn if the device of that name has another calibration by now."""
    if saved.name not in device_names():  # a file's text decides what is looked up: names alone
        return
    try:
        now = load_device(saved.name)
    except QnadError:  # a broken plugin, which this classifier does not need
        return
    now = now.model_copy(update={"crosstalk_model": saved.crosstalk_model})
    if now.hash != saved.hash and now.calibrated != saved.calibrated:
        warnings.warn(
            f"{saved.name} has been calibrated again since this classifier was saved (on "
            f"{saved.calibrated}, now {now.calibrated}). It runs on the calibration of then; "
            f"on({saved.name!r}) carries it to that of now.",
            QnadWarning,
            stacklevel=3,
        )
