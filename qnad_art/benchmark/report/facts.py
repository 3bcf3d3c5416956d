"""What was run, in brief and in full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qnad_art.benchmark.report.tables import duration, shots_text

if TYPE_CHECKING:
    from qnad_art.benchmark.report.source import Source

Facts = list[tuple[str, str]]


def facts(source: Source) -> Facts:
    """The terms under "What was run"."""
    results = source.results
    scored = [result for result in results if result.cell.kind != "audit"]
    cells = [result.cell for result in results]
    quantum = [result for result in results if result.provenance.device_hash is not None]
    return [
        ("Models", _each(cell.model for cell in cells)),
        ("Data", _each(cell.data for cell in cells)),
        ("Devices", _each(cell.device for cell in cells)),
        ("Crosstalk models", _each(r.provenance.crosstalk_model or "paper" for r in quantum)),
        ("Shots per product", _each(map(shots_text, quantum))),
        ("Defences", _each(cell.defence for cell in cells)),
        ("Attacks", _each(cell.attack for cell in cells if cell.attack)),
        ("Test images", _each(f"{result.images:,}" for result in scored)),
        ("Noise draws", _each(f"{result.draws:,}" for result in scored)),
        ("Seeds", _each(str(cell.seed) for cell in cells)),
        ("Cells measured", f"{len(set(cells) & set(source.cells)):,} of {len(source.cells):,}"),
        ("Wall time, summed over cells", duration(sum(result.seconds for result in results))),
    ]


def hashes(source: Source) -> Facts:
    """Versions of the packages and hashes of what the figures depend on."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for result in source.results:
        cell, provenance = result.cell, result.provenance
        for package, version in provenance.versions.items():
            found[package][version] = None
        found["processor"][provenance.gpu or "CPU"] = None
        found[f"data {cell.data}"][provenance.data_hash] = None
        found[f"weights {cell.model}"][provenance.weights_hash] = None
        if provenance.device_hash is not None:
            found[f"device {cell.device}"][provenance.device_hash] = None
    return [(name, ", ".join(values)) for name, values in found.items()]


def _each(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts)) or "none"
