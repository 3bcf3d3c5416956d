"""Peak resident memory of inference, each variant in a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.networks import NETWORKS, VARIANTS
from qnad_evaluations.performance.results import Case, Result, compared

TARGET = 1.2
PROCESSES = 3
"""Of each variant."""


def measure(settings: Settings) -> Iterator[Result]:
    """By network and batch; conversion is part of what the process does."""
    for model in settings.networks(NETWORKS):
        for batch in settings.sizes((1, 64, 256)):
            series: dict[str, list[float]] = {name: [] for name in ("plain", *VARIANTS)}
            for _ in range(2 if settings.quick else PROCESSES):
                for name, values in series.items():
                    arguments = [model, name, str(batch), settings.device]
                    command = [sys.executable, "-m", __name__, *arguments]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    values.append(float(done.stdout) / 2**20)
            case: Case = {"network": model, "batch": batch}
            targets = dict.fromkeys(VARIANTS, TARGET)
            yield from compared("memory", case, series, targets=targets, unit="MiB")


def peak(model: str, variant: str, batch: int, device: str) -> float:
    """Peak resident memory in bytes of this process after three batches."""
    import torch

    from qnad_art.network.conversion import convert
    from qnad_evaluations.performance.networks import plain_network

    network, x = plain_network(model, batch)
    if variant != "plain":
        network = convert(network, x, device=device, shots=VARIANTS[variant])
    with torch.no_grad():
        for _ in range(3):
            network(x)
    return _high_water_mark()


def _high_water_mark() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before exec
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else 1024 * most)


if __name__ == "__main__":
    print(peak(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
