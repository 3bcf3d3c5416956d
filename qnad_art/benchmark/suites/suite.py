"""Suites: which defences meet which attacks, on which data, and how they are judged.

A suite is a YAML file of plain data. A list may stand for a mapping from labels to items; the label
of an item is then its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.defences import steps_content, steps_in
from qnad_art.benchmark.defences.base import Defence
from qnad_art.benchmark.protocol import Protocol
from qnad_art.benchmark.records import Record, Rung
from qnad_art.benchmark.suites.documents import Document, Place, read_document
from qnad_art.benchmark.values import (
    Budgets,
    Count,
    Distinct,
    Label,
    Labelled,
    Located,
    LocatedCode,
    LocatedDevice,
    Seed,
    is_path,
    label_of,
)
from qnad_art.datasets.dataset import dataset_names
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.errors import InvalidInputError, QnadError, UnknownNameError
from qnad_art.models.architectures import is_code, model_names
from qnad_art.models.code import Reference, find_model
from qnad_art.pretrained import PRETRAINED
from qnad_art.training.standard import TrainSettings

Steps = Annotated[
    tuple[Defence, ...],
    PlainValidator(steps_in),
    PlainSerializer(steps_content),
    WithJsonSchema({}),
]

_MOST_FAULTS = 5


class DataSpec(Record):
    """Images: a data set by name, or a folder or zip file next to the suite.

    Args:
        name: name or path, see :func:`qnad_art.datasets.dataset.load_dataset`.
        images, train_images: numbers of test and training images; ``None`` for all.
        fit_images: number of training images that defences are fitted on, drawn anew for each of
            the suite's seeds; ``None`` for all.
        seed: seed of the samples of test and training images.
    """

    name: Located
    images: Count | None = None
    train_images: Count | None = None
    fit_images: Count | None = None
    seed: Seed = 0

    @field_validator("name")
    @classmethod
    def _name_or_path(cls, name: str) -> str:
        if name not in dataset_names() and not is_path(name):
            hint = str(UnknownNameError("data set", name, dataset_names()))
            raise ValueError(f"{hint} Write the path of a folder with a slash: ./{name}")
        return name


class ModelSpec(Record):
    """The plain network: trained in the run, read from a file, or one that comes with the package.

    Args:
        architecture: one of :func:`qnad_art.models.architectures.model_names`, or code as
            :func:`qnad_art.models.code.find_model` takes it, in a file relative to the suite.
        epochs, batch_size, learning_rate: settings of training; ``None`` for what suits the
            architecture.
        seed: seed of training.
        weights: safetensors file, relative to the suite; give ``architecture`` as well if the file
            does not say it.
        pretrained: one of :data:`qnad_art.pretrained.PRETRAINED`.
    """

    architecture: LocatedCode = None
    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    seed: Seed = 0
    weights: Located | None = None
    pretrained: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if self.code is not None:
            Reference.parse(self.code)
        elif self.architecture is not None and self.architecture not in model_names():
            raise UnknownNameError("architecture", self.architecture, model_names())
        if self.pretrained is not None and self.pretrained not in PRETRAINED:
            raise UnknownNameError("pretrained network", self.pretrained, PRETRAINED)
        ready = self.ready
        if ready and (self.epochs or self.batch_size or self.learning_rate or self.seed):
            raise ValueError(f"{ready} is not trained here: remove the settings of training")
        if (self.weights and self.pretrained) or (self.pretrained and self.architecture):
            raise ValueError("give pretrained alone")
        if not (ready or self.architecture):
            raise ValueError("give architecture (to train one), weights (a file) or pretrained")
        if not ready and self.code is None:
            self.training()
        return self

    @property
    def code(self) -> str | None:
        """The architecture, if it is code and not a registered name."""
        named = self.architecture is not None and is_code(self.architecture)
        return self.architecture if named else None

    @property
    def ready(self) -> str | None:
        """File or name of its weights; ``None`` if it is trained in the run."""
        return self.weights or self.pretrained

    def training(self) -> TrainSettings:
        """Settings of training, on the CPU so that figures are the same everywhere; runs code."""
        names = {"epochs", "batch_size", "learning_rate"}
        given = self.model_dump(include=names, exclude_none=True)
        model = find_model(str(self.architecture))
        return TrainSettings.for_model(model, device="cpu", seed=self.seed, **given)


class Attack(Record):
    """An attack of a suite, with budgets of its own if those of the suite do not fit its norm."""

    spec: AttackSpec
    eps: Budgets | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"spec": AttackSpec.parse(value)}
        settings = dict(value)
        eps = settings.pop("eps", None)
        return {"spec": AttackSpec.parse(settings), "eps": eps}

    @model_serializer
    def _as_settings(self) -> dict[str, Any]:
        own = {} if self.eps is None else {"eps": list(self.eps)}
        return {"name": self.spec.name, **self.spec.settings, **own}


class _Misplaced(ValueError):
    """A fault that only the whole suite shows, and its place."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place


def _model(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in PRETRAINED:
        return {"pretrained": value}
    return {"weights" if value.endswith(".safetensors") else "architecture": value}


def _allowed(spec: ModelSpec, info: ValidationInfo) -> ModelSpec:
    """Refuse a network that is code unless the context has ``allow_code``; no code is run here."""
    if spec.code is not None and not (info.context or {}).get("allow_code"):
        raise ValueError(
            f"{spec.code} is code, and a suite by itself never runs code: read the code, then "
            "give --allow-code (in Python allow_code=True)"
        )
    return spec


def _data(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Suite(Record):
    """Everything that a run measures, and how.

    Args:
        name: name of the suite and of its run folder.
        data: the images, one data set per suite.
        models: plain networks by label.
        devices: quantum devices by label: names, or JSON files next to the suite. A suffix
            ``*0.1`` gives a tenth of the noise.
        defences: defences by label: a name, a mapping with settings, or a list of those, applied in
            order.
        attacks: attacks by label: a name, or a mapping with settings.
        eps: budgets in units of the input, decimals or fractions.
        rungs: rungs of the threat ladder.
        seeds: seeds of defences, attacks and noise; everything is repeated for each.
        protocol: numbers of draws and samples.
        audit: whether every defence is audited.
        keep_examples: whether adversarial examples are kept for the report's gallery.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.+-]{0,59}$")]
    data: Annotated[DataSpec, BeforeValidator(_data)]
    models: Annotated[
        dict[Label, Annotated[ModelSpec, BeforeValidator(_model), AfterValidator(_allowed)]],
        Labelled,
        Field(min_length=1),
    ]
    devices: Annotated[
        dict[Label, LocatedDevice],
        Labelled,
        Field(min_length=1, default_factory=lambda: {DEFAULT_DEVICE: DEFAULT_DEVICE}),
    ]
    defences: Annotated[dict[Label, Steps], Labelled, Field(min_length=1)]
    attacks: Annotated[dict[Label, Attack], Labelled, Field(default_factory=dict)]
    eps: Budgets = ()
    rungs: Annotated[tuple[Rung, ...], Distinct] = ("transfer", "white-box")
    seeds: Annotated[tuple[Seed, ...], Distinct, Field(min_length=1)] = (0,)
    protocol: Protocol = Protocol()
    audit: bool = True
    keep_examples: bool = False

    @model_validator(mode="after")
    def _budgets_fit(self) -> Suite:
        for label, attack in self.attacks.items():
            place = ("eps",) if attack.eps is None else ("attacks", label, "eps")
            if not attack.spec.budgeted and attack.eps is not None:
                raise _Misplaced(place, f"attack {label!r} takes no ε: remove it")
            if attack.spec.budgeted and not self.budgets(attack):
                raise _Misplaced(place, f"attack {label!r} needs an ε, such as [0.1, 2/255]")
            largest = max(self.budgets(attack), default=0)
            if attack.spec.norm == "inf" and largest > 1:
                text = f"ε {largest:g} for {label!r}: pixels lie in [0, 1], so L∞ ends at 1"
                raise _Misplaced(place, text)
        return self

    def budgets(self, attack: Attack) -> tuple[float, ...]:
        """Values of ε that an attack is run with."""
        return self.eps if attack.eps is None else attack.eps


def load_suite(path: str | Path, *, allow_code: bool = False, model: str | None = None) -> Suite:
    """Read a suite.

    Args:
        path: path of the file.
        allow_code: whether its networks may be code, which a run of the suite then runs.
        model: a network instead of those of the suite, in the short form of suites, with files
            relative to the working directory. It may be code.

    Raises:
        InvalidInputError: the file is not YAML, or has unknown or missing keys or wrong values; the
            message names the line of each fault.
    """
    document = read_document(Path(path))
    value = document.value
    if model is not None and isinstance(value, dict):
        value = {**value, "models": {label_of(model): _asked_for(model)}}
        allow_code = True  # only the caller's network can be code
    context = {"folder": document.path.resolve().parent, "allow_code": allow_code}
    try:
        suite = Suite.model_validate(value, context=context)
    except ValidationError as error:
        raise _refusal(document, (_explain(fault) for fault in error.errors())) from None
    for label, device in suite.devices.items():
        try:
            load_device(device)
        except QnadError as error:
            raise _refusal(document, [(("devices", label), str(error))]) from error
    return suite


def _asked_for(model: str) -> ModelSpec:
    try:
        return ModelSpec.model_validate(_model(model), context={"folder": Path.cwd()})
    except ValidationError as error:
        raise InvalidInputError(f"{model}: {_explain(error.errors()[0])[1]}.") from None


def _refusal(document: Document, faults: Iterable[tuple[Place, str]]) -> InvalidInputError:
    lines = [
        f"line {document.line(place, label_of)}, {'.'.join(map(str, place)) or 'suite'}: {text}"
        for place, text in faults
    ]
    more = [f"and {len(lines) - _MOST_FAULTS} more"] if len(lines) > _MOST_FAULTS else []
    return InvalidInputError("\n  ".join([f"{document.path}:", *lines[:_MOST_FAULTS], *more]))


def _explain(fault: Any) -> tuple[Place, str]:
    """Place of a fault, and its description."""
    place = tuple(part for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        return place, str(UnknownNameError("key", place[-1], _keys(place[:-1])))
    if fault["type"] == "missing":
        return place[:-1], f"the key {place[-1]!r} is missing"
    if fault["type"] == "value_error":
        error = fault["ctx"]["error"]
        return getattr(error, "place", place), str(error)
    return place, f"{fault['msg']}, not {str(fault['input'])[:60]!r}"


def _keys(place: Place) -> Iterable[str]:
    """Valid keys of the mapping at ``place``."""
    kind: Any = Suite
    for part in place:
        fields = getattr(kind, "model_fields", {})
        kind = fields[part].annotation if part in fields else kind.__args__[-1]
        kind = getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind
    return kind.model_fields if issubclass(kind, BaseModel) else ()
