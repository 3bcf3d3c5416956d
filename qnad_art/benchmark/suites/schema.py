"""The JSON schema of suites, by which editors complete and check them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qnad_art.benchmark.attacks import attack_names
from qnad_art.benchmark.defences import defence_names
from qnad_art.benchmark.suites.suite import Suite
from qnad_art.models.architectures import model_names
from qnad_art.pretrained import PRETRAINED

Schema = dict[str, Any]

_BUDGETS: Schema = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "pattern": r"^\s*[0-9.]+\s*(/\s*[0-9.]+\s*)?$"},
        ]
    },
}


def suite_schema() -> Schema:
    """JSON schema (draft 2020-12) of a suite file, short forms included."""
    schema: Schema = Suite.model_json_schema()
    # Files may use short forms, which pydantic does not know.
    properties = schema["properties"]
    definitions = schema["$defs"]
    attack = _named(attack_names(), {"eps": _BUDGETS})
    step = _named(defence_names(), {})
    steps = {"anyOf": [step, {"type": "array", "items": step}]}
    networks = {"type": "string", "enum": [*model_names(), *PRETRAINED]}
    files = {"type": "string", "pattern": r"\.safetensors$"}
    code = {"type": "string", "pattern": r":\w+$", "description": "Needs --allow-code."}
    model = {"anyOf": [networks, files, code, definitions["ModelSpec"]]}
    forms = {
        "data": {"anyOf": [{"type": "string"}, definitions["DataSpec"]]},
        "models": _labelled(model),
        "devices": _labelled({"type": "string"}),
        "defences": _labelled(steps),
        "attacks": _labelled(attack),
        "eps": _BUDGETS,
    }
    for name, form in forms.items():
        described = {k: v for k, v in properties[name].items() if k in ("title", "default")}
        properties[name] = {**described, **form}
    for unused in ("ModelSpec", "DataSpec", "Attack", "AttackSpec"):
        definitions.pop(unused, None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _named(names: Iterable[str], properties: Schema) -> Schema:
    """A name, or a mapping with a name and settings."""
    name = {"type": "string", "enum": sorted(names)}
    mapping = {
        "type": "object",
        "properties": {"name": name, **properties},
        "required": ["name"],
    }
    return {"anyOf": [name, mapping]}


def _labelled(item: Schema) -> Schema:
    """A mapping from labels to items, or a list of items whose names are their labels."""
    mapping = {"type": "object", "additionalProperties": item, "minProperties": 1}
    return {"anyOf": [mapping, {"type": "array", "items": item, "minItems": 1}]}
