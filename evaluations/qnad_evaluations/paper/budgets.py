"""What the defences of a record were trained with: unequal budgets are no equal comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from qnad_evaluations.paper.record import Recorded

UNKNOWN = "not recorded"
WARNING = (
    "**The defences were not trained with equal budgets**: one that was trained for longer, or on "
    "more images, may owe its place to that. Under each table: epochs × training images × attack "
    "steps, – for no such setting. Folders of `qnad harden` were tuned before, by default on all "
    "training images; where the number was not recorded, the suite's file says how many images "
    "the suite's own training takes today (`train_images`)."
)


def budget_text(record: Recorded, defences: Iterable[str]) -> str:
    """The defences that were trained, by their budgets; nothing if none was."""
    found: dict[str, list[str]] = defaultdict(list)
    for defence in defences:
        parts = [_budget(record, step) for step in record.header.defences.get(defence, ())]
        budget = ", then ".join(part for part in parts if part)
        if budget:
            found[budget].append(f"*{defence}*")
    texts = (f"{', '.join(names)}: {budget}" for budget, names in found.items())
    return f"Trained: {'; '.join(texts)}." if found else ""


def tuned_with(record: Recorded) -> dict[str, Mapping[str, Any] | None]:
    """By folder, the settings of the crosstalk that the defences take; ``None``: not recorded."""
    steps = [step for steps in record.header.defences.values() for step in steps]
    parts = [part for step in steps for part in (step, *step.get("of", ()))]
    folders = [part["folder"] for part in parts if part["name"] == "hardened"]
    return {folder: record.header.plans.get(folder) for folder in folders}


def _budget(record: Recorded, step: Mapping[str, Any]) -> str:
    """Of a step; nothing if it does not train."""
    if step["name"] == "hardened":  # trained before, on images of its own
        settings = tuned_with(record)[step["folder"]]
        if settings is None:
            return UNKNOWN
        images = settings.get("training_images", UNKNOWN)
    else:
        settings, images = step, record.header.data.get("train_images", UNKNOWN)
    if "epochs" not in settings:
        return ""
    return f"{settings['epochs']} × {images} × {settings.get('attack_steps', '–')}"
