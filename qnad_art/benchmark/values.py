"""Short ways to write a suite, and the types of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo

from qnad_art.models.architectures import is_code
from qnad_art.training.budget import parse_budget

Value = TypeVar("Value")


def label_of(item: Any) -> str | None:
    """Label of an item in a list that stands for a mapping, or ``None`` if none can be derived.

    A name is its own label. The label of a file is its stem, that of code is its file and name, and
    that of a composition consists of the labels of its parts.
    """
    if isinstance(item, str):
        if item.endswith((".json", ".safetensors")):
            return Path(item).stem
        return Path(item).name if is_code(item) else item
    if isinstance(item, dict):
        named = (item.get(key) for key in ("name", "pretrained", "weights", "architecture"))
        return next((label_of(name) for name in named if isinstance(name, str)), None)
    if isinstance(item, list):
        labels = [label_of(part) for part in item]
        return " + ".join(map(str, labels)) if labels and all(labels) else None
    return None


def labelled(value: Any) -> Any:
    """The mapping that a list stands for; other values as they are."""
    if not isinstance(value, list):
        return value
    found: dict[str, Any] = {}
    for item in value:
        label = label_of(item)
        if label is None:
            raise ValueError(f"{item!r} has no name: write a mapping from labels to items")
        if label in found:
            raise ValueError(
                f"{label!r} is in the list twice: write a mapping, with a label for each"
            )
        found[label] = item
    return found


def _distinct(values: Sequence[Value]) -> Sequence[Value]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is listed twice; once is enough")
    return values


def is_path(text: str) -> bool:
    """Whether a text is a path, not a name: paths have a slash or a suffix."""
    return "/" in text or Path(text).is_absolute() or bool(Path(text).suffix)


def _device_beside(text: str, info: ValidationInfo) -> str:
    """Resolve a device's file against the suite's folder; a dot in a name is not a suffix."""
    return _beside(text, info) if text.partition("*")[0].endswith(".json") else text


def _code_beside(text: str | None, info: ValidationInfo) -> str | None:
    """Resolve a file of code against the suite's folder; names and modules stay as they are."""
    return _beside(text, info) if text is not None and ".py:" in text else text


def _beside(text: str, info: ValidationInfo) -> str:
    """Resolve a path against the suite's folder; a name stays as it is."""
    folder: Path | None = (info.context or {}).get("folder")
    return text if folder is None or not is_path(text) else str((folder / text).resolve())


def _budgets(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"give a list such as [0.1, 2/255], not {value!r}")
    return [parse_budget(str(item), "ε", most=math.inf) for item in value]


Label = Annotated[str, StringConstraints(pattern=r"^\S(.{0,58}\S)?$")]
Located = Annotated[str, AfterValidator(_beside)]
LocatedCode = Annotated[str | None, AfterValidator(_code_beside)]
LocatedDevice = Annotated[str, AfterValidator(_device_beside)]
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Distinct = AfterValidator(_distinct)
Labelled = BeforeValidator(labelled)
Budgets = Annotated[tuple[float, ...], BeforeValidator(_budgets), Distinct]
