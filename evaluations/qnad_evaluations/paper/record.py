"""Records: a run's results in one small JSON-lines file that belongs into the repository.

The first line says what was run, every other is a :class:`~qnad_art.benchmark.records.Result`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from qnad_art.benchmark.records import Record, Result
from qnad_art.errors import ArtifactError, faults
from qnad_art.files.atomic import write_bytes
from qnad_evaluations.paper.suites import Collection, Size, hardened_folders

if TYPE_CHECKING:
    from qnad_art.benchmark.run.folder import Run
    from qnad_evaluations.paper.suites import SuiteFile

Kind = TypeVar("Kind", bound=Record)


class Header(Record):
    """What was run.

    Args:
        collection, size, name: of the suite.
        command: that makes the results.
        data: name and provenance of the test images; how many training images its defences are
            fitted on, which old records lack.
        models, defences: by label, as the suite gives them; files by their names only.
        versions: of the packages.
        machine: processor, cores, system and GPUs.
        recorded: date, UTC.
        cells: how many the suite asks for.
        plans: by folder, with what settings the crosstalk was made that the defences take from it.
        failures: cells that could not be measured, each with the reason.
    """

    format: Literal[1] = 1
    collection: Collection
    size: Size
    name: str
    command: str
    data: dict[str, str]
    models: dict[str, dict[str, Any]]
    defences: dict[str, list[dict[str, Any]]]
    versions: dict[str, str]
    machine: str
    recorded: str
    cells: int
    plans: dict[str, dict[str, Any]] = Field(default_factory=dict)
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> Path:
        """As that of the suite."""
        return Path(self.collection, self.size, self.name)


@dataclass(frozen=True)
class Recorded:
    """A record."""

    header: Header
    results: tuple[Result, ...]

    @cached_property
    def seconds(self) -> float:
        """Time of all cells, on one core each."""
        return sum(result.seconds for result in self.results)

    def write(self, folder: Path) -> Path:
        """Write the record below ``folder``."""
        lines = [self.header.model_dump_json(), *(r.model_dump_json() for r in self.results)]
        path = folder / self.header.place.with_suffix(".jsonl")
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
        return path


def record_run(run: Run, suite: SuiteFile, command: str, provenance: str) -> Recorded:
    """The record of a run, complete or not; raises ArtifactError if it has no results yet."""
    from qnad_art.accuracy import package_versions
    from qnad_art.benchmark.defences import steps_content
    from qnad_art.benchmark.report.source import results_of

    cells = run.cells
    results = [result for result in results_of(run) if result.key in cells]
    gpus = sorted({gpu for result in results if (gpu := result.provenance.gpu)})
    header = Header(
        collection=suite.collection,
        size=suite.size,
        name=suite.path.stem,
        command=command,
        data={
            "name": run.suite.data.name,
            "provenance": provenance,
            "train_images": f"{run.suite.data.fit_images or run.suite.data.train_images or 'all'}",
        },
        models={label: _named(m.model_dump(mode="json")) for label, m in run.suite.models.items()},
        defences={
            label: [_named(step) for step in steps_content(steps)]
            for label, steps in run.suite.defences.items()
        },
        versions=package_versions(),
        machine=", ".join(
            [platform.machine(), f"{os.cpu_count()} cores", platform.system(), *gpus]
        ),
        recorded=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        cells=len(cells),
        plans={path.name: _plan_settings(path) for path in hardened_folders(run.suite)},
        failures=tuple((str(failure.cell), failure.reason) for failure in run.failures()),
    )
    return Recorded(header, tuple(_slim(result) for result in results))


def read_records(folder: Path) -> list[Recorded]:
    """All records below ``folder``, by their places.

    Raises:
        ArtifactError: a file that is no record.
    """
    return [_read(path) for path in sorted(folder.glob("*/*/*.jsonl"))]


def _read(path: Path) -> Recorded:
    lines = path.read_bytes().splitlines() or [b""]
    results = (_parsed(Result, line, f"{path}, line {n}") for n, line in enumerate(lines[1:], 2))
    return Recorded(_parsed(Header, lines[0], f"{path}, line 1"), tuple(results))


def _parsed(kind: type[Kind], line: bytes, where: str) -> Kind:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise ArtifactError(
            f"{where}, is not of a record of `qnad paper`: {faults(error)}. Restore the file, or "
            "record the suite again."
        ) from None


def _slim(result: Result) -> Result:
    """Without the versions, which the header has."""
    provenance = result.provenance.model_copy(update={"versions": {}})
    return result.model_copy(update={"provenance": provenance})


def _plan_settings(folder: Path) -> dict[str, Any]:
    """Of the crosstalk in a folder that ``qnad harden`` wrote, as plain JSON."""
    from qnad_art.storage import read_saved

    saved = read_saved(folder)
    plan = saved.plan()
    execution = {"headroom": saved.settings.headroom, "bias": saved.settings.bias}
    return {"strategy": plan.strategy, **plan.settings, **execution, **_training_images(folder)}


def _training_images(folder: Path) -> dict[str, int]:
    """As far as the card says it that is in a pretrained folder, or beside one of `qnad harden`."""
    cards = (folder / "card.json", folder.with_name(f"{folder.name}.card.json"))
    for card in cards:
        if card.exists():
            return {"training_images": json.loads(card.read_bytes())["training_images"]}
    return {}


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without ``None``, and with the names of files instead of their places."""
    kept = {name: value for name, value in settings.items() if value is not None}
    for name in ("weights", "folder"):
        if name in kept:
            kept[name] = Path(kept[name]).name
    if "of" in kept:
        kept["of"] = [_named(step) for step in kept["of"]]
    return kept
