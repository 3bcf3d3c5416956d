"""Saving a hardened classifier as checksummed data (safetensors and JSON), never code or pickle."""

from __future__ import annotations

import copy
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError
from qnad_art.files.artifacts import load_tensors, save_tensors
from qnad_art.files.atomic import checksum, read_json, write_json
from qnad_art.layers.mappings import DEFAULT_MAPPING
from qnad_art.models.weights import build_for
from qnad_art.network.conversion import convert
from qnad_art.network.module import AveragedDraws, QuantumExecutedModule
from qnad_art.network.settings import ExecutionSettings
from qnad_art.placement.placement import Placement
from qnad_art.placement.plan import CrosstalkPlan

KIND = "quantum-executed-classifier"
FORMAT_VERSION = 1
CALIBRATION = ("input_scale", "input_spread", "input_squares", "clipped", "shot_share")
EXECUTION = (
    "readout",
    "shots",
    "gain",
    "headroom",
    "bias",
    "max_pairs",
    "order",
    "compute",
)
"""Settings of the execution in the manifest, which has separate entries for device and layers."""
_LATER = ("input_squares",)
"""Entries that are missing in files of earlier versions."""
_UNUSABLE = (QnadError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Errors that wrong values in a manifest raise."""
MANIFEST, WEIGHTS, PLAN = "manifest.json", "weights.safetensors", "plan.safetensors"


class Executed(Protocol):
    """The parts of a :class:`~qnad_art.QuantumExecutedClassifier` that are saved."""

    model: nn.Module
    loss: Any
    input_shape: tuple[int, ...]
    nb_classes: int
    channels_first: bool
    clip_values: Any
    preprocessing: Any
    preprocessing_defences: Any
    postprocessing_defences: Any

    @property
    def bare_module(self) -> QuantumExecutedModule:
        """The quantum-executed module, with nothing around it except averaging."""


Classifier = TypeVar("Classifier")


def save_classifier(classifier: Executed, directory: Path) -> None:
    """Write ``directory`` in one step; an earlier save there is replaced.

    Raises:
        InvalidInputError: the classifier has parts that data cannot describe (preprocessing or
            postprocessing defences, a loss other than cross-entropy), or ``directory`` exists and
            is not a saved classifier.
    """
    module, manifest = classifier.bare_module, _manifest(classifier)
    check_directory(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        save_tensors(aside / WEIGHTS, module.network.state_dict(), kind="weights", header={})
        module.plan.save(aside / PLAN)
        manifest["sha256"] = {name: _sha256(aside / name) for name in (WEIGHTS, PLAN)}
        manifest["checksum"] = checksum(manifest)
        write_json(aside / MANIFEST, manifest)
        aside.chmod(0o755)
        _swap(aside, directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def check_directory(directory: Path) -> None:
    """Raise :class:`~qnad_art.errors.InvalidInputError` if a save would replace something else."""
    if not directory.exists():
        return
    try:
        manifest = read_json(directory / MANIFEST)
    except ArtifactError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InvalidInputError(
            f"{directory} exists and is not a saved classifier; choose another folder."
        )


@dataclass(frozen=True)
class Saved:
    """A save whose files are intact; its tensors are read only when they are needed."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def checksum(self) -> str:
        """SHA-256 of all its content."""
        return checksum(self.manifest)

    @property
    def settings(self) -> ExecutionSettings:
        """How the network is executed, except for the scales and shots of its layers."""
        return ExecutionSettings(
            device=self.device,
            include=[glob.escape(name) for name in self.manifest["layers"]],
            **self.manifest["execution"],
        )

    @property
    def device(self) -> DeviceProfile:
        """The quantum device."""
        # Folders from before crosstalk models have a device that does not name one.
        return DeviceProfile.from_dict({"crosstalk_model": "paper", **self.manifest["device"]})

    @property
    def architecture(self) -> str | None:
        """Name of the network; ``None`` if it was not built by name."""
        architecture = self.manifest["architecture"]
        return None if architecture is None else str(architecture["name"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.manifest["input_shape"])

    @property
    def nb_classes(self) -> int:
        """Number of classes."""
        return int(self.manifest["nb_classes"])

    @property
    def placement(self) -> Placement:
        """Placement of the products on the device."""
        return self.settings.placement(self.device)

    def plan(self) -> CrosstalkPlan:
        """The crosstalk plan."""
        return CrosstalkPlan.load(self.directory / PLAN)

    def weights(self) -> dict[str, torch.Tensor]:
        """State of the network."""
        return load_tensors(self.directory / WEIGHTS, kind="weights")[0]

    def calibrate(self, module: QuantumExecutedModule) -> None:
        """Give the layers of ``module`` their saved scales and shots."""
        for name, layer in module.layers.items():
            for key in CALIBRATION:
                there = self.manifest["layers"][name]
                value = there.get(key) if key in _LATER else there[key]
                setattr(layer, key, tuple(value) if isinstance(value, list) else value)


def read_saved(directory: Path) -> Saved:
    """Open what :func:`save_classifier` wrote; raises :class:`~qnad_art.errors.ArtifactError`."""
    directory = _whole(directory)
    return Saved(directory, _read_manifest(directory))


def load_classifier(
    make: Callable[..., Classifier], directory: Path, *, model: nn.Module | None, **settings: Any
) -> Classifier:
    """See :meth:`qnad_art.QuantumExecutedClassifier.load`, whose class is ``make``."""
    saved = read_saved(directory)
    manifest, weights, plan = saved.manifest, saved.weights(), saved.plan()
    try:
        network = copy.deepcopy(model) if model is not None else _build(manifest, weights)
        _load_weights(network, weights)
        module = convert(network, settings=saved.settings)
        saved.calibrate(module)
        module.plan = plan
        averaged = manifest["averaged"]
        mean, deviation = manifest["preprocessing"] or (0.0, 1.0)
        given: dict[str, Any] = {
            "loss": nn.CrossEntropyLoss(),
            "input_shape": saved.input_shape,
            "nb_classes": saved.nb_classes,
            "clip_values": _arrays(manifest["clip_values"]),
            "channels_first": manifest["channels_first"],
            "preprocessing": _arrays((mean, deviation)),
            "device_type": "cpu",
        }
        executed = AveragedDraws(module, **averaged) if averaged else module
    except _UNUSABLE as error:
        raise ArtifactError(f"{directory} cannot be loaded: {error}") from error
    try:
        return make(executed, **{**given, **settings})
    except (TypeError, ValueError) as error:
        if settings:  # The caller's settings may be wrong, not the file.
            raise
        raise ArtifactError(f"{directory} cannot be loaded: {error}") from error


def _read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest, after a check of it and of the files that it lists."""
    manifest = read_json(directory / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise ArtifactError(f"{directory} is not a saved {KIND}.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{directory} has format version {manifest.get('format_version')}; this qnad_art "
            f"reads {FORMAT_VERSION}. Update qnad_art, or save the classifier again."
        )
    if manifest.pop("checksum", None) != checksum(manifest):
        raise ArtifactError(f"{directory / MANIFEST} fails its checksum: damaged or edited.")
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or set(digests) != {WEIGHTS, PLAN}:
        raise ArtifactError(f"{directory / MANIFEST} does not list its files.")
    for name, digest in digests.items():
        if not (directory / name).is_file():
            raise ArtifactError(f"{directory / name} is missing.")
        if _sha256(directory / name) != digest:
            raise ArtifactError(f"{directory / name} fails its checksum: damaged or edited.")
    return manifest


def _manifest(classifier: Executed) -> dict[str, Any]:
    from qnad_art.version import __version__

    module = classifier.bare_module
    if classifier.preprocessing_defences or classifier.postprocessing_defences:
        raise InvalidInputError(
            "Preprocessing and postprocessing defences are code, which cannot be saved: save the "
            "classifier without them, and attach them again after loading."
        )
    loss, plain = classifier.loss, nn.CrossEntropyLoss()
    compared = ("ignore_index", "label_smoothing", "reduction")
    if (
        type(loss) is not nn.CrossEntropyLoss
        or loss.weight is not None
        or any(getattr(loss, name) != getattr(plain, name) for name in compared)
    ):
        raise InvalidInputError(
            f"Only classifiers with a plain CrossEntropyLoss() can be saved, not with {loss}: give "
            "another loss when loading, load(directory, loss=…)."
        )
    architecture = getattr(module.network, "architecture", None)
    averaged, settings = classifier.model, module.settings
    execution = {name: getattr(settings, name) for name in EXECUTION}
    # What earlier versions do not know is named only where it differs from what they do.
    if settings.mapping != DEFAULT_MAPPING:
        execution["mapping"] = settings.mapping
    if settings.echo:
        execution["echo"] = True
    clip = classifier.clip_values
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "qnad_art": __version__,
        "torch": torch.__version__,
        "architecture": None if architecture is None else asdict(architecture),
        "device": module.device_profile.model_dump(mode="json"),
        "execution": execution,
        "layers": {
            name: {key: getattr(layer, key) for key in CALIBRATION}
            for name, layer in module.layers.items()
        },
        "averaged": (
            {"draws": averaged.draws, "of": averaged.of}
            if isinstance(averaged, AveragedDraws)
            else None
        ),
        "input_shape": list(classifier.input_shape),
        "nb_classes": classifier.nb_classes,
        "channels_first": classifier.channels_first,
        "clip_values": None if clip is None else [np.asarray(v).tolist() for v in clip],
        "preprocessing": _preprocessing(classifier),
    }


def _preprocessing(classifier: Executed) -> list[Any] | None:
    preprocessing = classifier.preprocessing
    if preprocessing is None:
        return None
    mean, deviation = (getattr(preprocessing, name, None) for name in ("mean", "std"))
    if mean is None or deviation is None:
        raise InvalidInputError(
            f"Only (mean, std) preprocessing can be saved, not {type(preprocessing).__name__}."
        )
    return [np.asarray(mean).tolist(), np.asarray(deviation).tolist()]


def _build(manifest: dict[str, Any], weights: dict[str, torch.Tensor]) -> nn.Module:
    if manifest["architecture"] is None:
        raise ArtifactError(
            "the network's class is not one of qnad_art.models, and code is never stored: pass an "
            "instance, load(directory, model=MyNetwork()), or use --model FILE.py:NAME on the "
            "command line."
        )
    return build_for(weights, WEIGHTS, **manifest["architecture"])


def _load_weights(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    own = network.state_dict(keep_vars=True)
    other = {n: t for n, t in own.items() if n in weights and t.dtype != weights[n].dtype}
    kinds = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if other and len(kinds) == 1:  # The network was built in float32 and saved in another type.
        network.to(kinds.pop())
    for name, tensor in other.items():
        tensor.data = tensor.data.to(weights[name].dtype)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit the network: {error}") from error


def _arrays(values: Any) -> Any:
    """JSON lists in the form that ART takes: a tuple of floats or float32 arrays."""
    if values is None:
        return None
    return tuple(np.float32(v) if np.ndim(v) == 0 else np.asarray(v, np.float32) for v in values)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _whole(directory: Path) -> Path:
    """The folder of the save: ``directory``, or the one that a killed :func:`_swap` put aside."""
    if directory.exists():
        return directory
    aside = (holder / "old" for holder in _holders(directory))
    return next((old for old in aside if old.is_dir()), directory)


def _holders(directory: Path) -> list[Path]:
    return sorted(directory.parent.glob(f"{glob.escape(f'.{directory.name}.old.')}*"))


def _swap(aside: Path, directory: Path) -> None:
    """Put ``aside`` in the place of ``directory``, which is restored if that fails.

    No system call exchanges two folders on all systems, so for a moment there is none. If the
    process is killed in this moment, :func:`_whole` finds the earlier one.
    """
    left_by_killed_processes = _holders(directory)
    holder = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.old."))
    old = holder / "old"
    try:
        if directory.exists():
            os.replace(directory, old)
        os.replace(aside, directory)
    except BaseException:
        if old.exists() and not directory.exists():
            os.replace(old, directory)
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
    for holder in left_by_killed_processes:
        shutil.rmtree(holder, ignore_errors=True)
