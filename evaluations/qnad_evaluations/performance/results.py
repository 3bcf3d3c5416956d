"""Results of measurements, and the JSON file that keeps them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qnad_art.errors import ArtifactError, differences
from qnad_art.files.atomic import read_json, write_json
from qnad_art.version import __version__
from qnad_evaluations.performance.pairs import Ratio, ratio

_VERSION = 1

Case = dict[str, str | int]
"""What a figure was measured on: network, batch, …"""


@dataclass(frozen=True)
class Result:
    """One measured figure.

    Args:
        measurement: its name.
        case: what it was measured on (network, batch, …), the columns of the table.
        variant: which of the things compared this is.
        value, unit: the median.
        ratio: to the first variant of the case; ``None`` where nothing is compared.
        target: what the ratio should not exceed, or the value where there is no ratio.
    """

    measurement: str
    case: Case
    variant: str
    value: float
    unit: str
    ratio: Ratio | None = None
    target: float | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What distinguishes it from all others."""
        return (self.measurement, *sorted(self.case.items()), self.variant)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; ``None`` without one."""
        if self.target is None:
            return None
        return (self.value if self.ratio is None else self.ratio.median) <= self.target


@dataclass(frozen=True)
class Recorded:
    """All results of one measurement, and where they were measured."""

    environment: Mapping[str, str | int]
    results: tuple[Result, ...]


def compared(
    measurement: str,
    case: Case,
    series: Mapping[str, Sequence[float]],
    *,
    targets: Mapping[str, float] | None = None,
    unit: str = "s",
) -> list[Result]:
    """Results of series of one case, round by round; ratios are to the first of them."""
    base = next(iter(series.values()))
    targets = targets or {}
    return [
        Result(
            measurement,
            dict(case),
            name,
            statistics.median(values),
            unit,
            ratio(values, base) if len(series) > 1 else None,
            targets.get(name),
        )
        for name, values in series.items()
    ]


def environment() -> dict[str, str | int]:
    """What the figures depend on besides the program."""
    import torch

    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "qnad-art": __version__,
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def read_results(path: Path) -> dict[str, Recorded]:
    """Results by measurement; raises ArtifactError where the file is not one of ``qnad bench``."""
    content = read_json(path)
    try:
        if content["version"] != _VERSION:
            raise ArtifactError(
                f"{path} has format version {content['version']}, not {_VERSION}: measure again."
            )
        return {
            name: Recorded(part["environment"], tuple(_result(row) for row in part["results"]))
            for name, part in content["measurements"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} holds no results of `qnad bench`: {error!r}.") from error


def write_results(path: Path, recorded: Mapping[str, Recorded]) -> None:
    """Replace the file in one step."""
    measurements = {
        name: {
            "environment": dict(part.environment),
            "results": [asdict(result) for result in part.results],
        }
        for name, part in recorded.items()
    }
    write_json(path, {"version": _VERSION, "measurements": measurements})


def merged(
    recorded: Mapping[str, Recorded], results: Iterable[Result], here: Mapping[str, str | int]
) -> dict[str, Recorded]:
    """``recorded`` with new results in the place of old ones of the same case.

    A measurement's results all come from one environment: those of another one are dropped.
    """
    everything = dict(recorded)
    for result in results:
        old = everything.get(result.measurement)
        kept = () if old is None or differences(old.environment, here) else old.results
        rows = {row.key: row for row in kept} | {result.key: result}
        everything[result.measurement] = Recorded(dict(here), tuple(rows.values()))
    return everything


def _result(row: Mapping[str, Any]) -> Result:
    spread = row["ratio"]
    return Result(**{**row, "ratio": None if spread is None else Ratio(**spread)})


def _processor() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
