"""What everyone pays first: the import and the command's help, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from qnad_evaluations.performance.measurements import Settings
from qnad_evaluations.performance.pairs import interleaved
from qnad_evaluations.performance.results import Result, compared

COMMANDS = {
    "python, nothing imported": ("pass", None),
    "import qnad_art": ("import qnad_art", 0.3),
    "qnad --help": (
        "import sys; sys.argv = ['qnad', '--help']\nimport qnad_art.cli as c; c.main()",
        0.5,
    ),
    "convert and classifier imported": (
        "from qnad_art import QuantumExecutedClassifier, convert",
        None,
    ),
    "torch and ART imported": ("import torch\nimport art.estimators.classification", None),
}
"""Program and target in seconds."""
QUICK = tuple(name for name, (_, target) in COMMANDS.items() if target is not None)


def measure(settings: Settings) -> Iterator[Result]:
    """Seconds of each, the start of Python included."""

    def run(program: str) -> Callable[[], object]:
        command = [sys.executable, "-c", program]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    names = QUICK if settings.quick else COMMANDS
    runs = {name: run(COMMANDS[name][0]) for name in names}
    for name, values in interleaved(runs, settings.rounds, budget=2 * settings.budget).items():
        targets = {} if COMMANDS[name][1] is None else {name: COMMANDS[name][1]}
        yield from compared("startup", {}, {name: values}, targets=targets)  # type: ignore[arg-type]
