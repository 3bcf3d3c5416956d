"""The suites of ``evaluations/``: where they are, and which files they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from qnad_art.errors import InvalidInputError

if TYPE_CHECKING:
    from qnad_art.benchmark.suites.suite import Suite

Collection = Literal["paper", "comparative"]
Size = Literal["quick", "reduced", "full"]
SIZES: tuple[Size, ...] = get_args(Size)


@dataclass(frozen=True)
class SuiteFile:
    """A suite of a collection and size; its results are recorded under its :attr:`place`."""

    path: Path
    collection: Collection
    size: Size

    @property
    def place(self) -> Path:
        """``paper/reduced/lenet5-mnist``, without a suffix."""
        return Path(self.collection, self.size, self.path.stem)

    def load(self, weights: Path | None = None, hardened: Path | None = None) -> Suite:
        """The suite.

        Args:
            weights: folder of weights files, ``None`` for where the suite says.
            hardened: folder of folders that ``qnad harden`` wrote, alike.
        """
        from qnad_art.benchmark.suites.suite import load_suite

        suite = load_suite(self.path)
        return _elsewhere(suite, weights, hardened)


def suites_folder() -> Path:
    """The folder of the collections: in the installed package, or around it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "suites"
    return installed if installed.is_dir() else package.parent


def find_suites(size: Size, names: Sequence[str] = ()) -> list[SuiteFile]:
    """Suites of a size, those of the paper first.

    Args:
        size: one of :data:`SIZES`.
        names: patterns of their places without the size, such as ``paper/lenet*``; all for none.

    Raises:
        InvalidInputError: a pattern that fits none.
    """
    found = [
        SuiteFile(path, collection, size)
        for collection in get_args(Collection)
        for path in sorted((suites_folder() / collection / size).glob("*.yaml"))
    ]
    listed = {f"{suite.collection}/{suite.path.stem}": suite for suite in found}
    for name in names:
        if not any(fnmatchcase(place, name) for place in listed):
            raise InvalidInputError(
                f"No suite of size {size} is called {name!r}; there are {', '.join(listed)}."
            )
    return [
        suite
        for place, suite in listed.items()
        if not names or any(fnmatchcase(place, name) for name in names)
    ]


def missing_files(suite: Suite) -> list[str]:
    """What a suite names and is not there, each with how it is made."""
    weights = [Path(model.weights) for model in suite.models.values() if model.weights]
    return [
        *(f"{path} (made by `qnad train`)" for path in _absent(weights)),
        *(f"{path} (made by `qnad harden`)" for path in _absent(hardened_folders(suite))),
    ]


def hardened_folders(suite: Suite) -> list[Path]:
    """Folders of ``qnad harden`` whose crosstalk the suite's defences take."""
    from qnad_art.benchmark.defences.hardened import Hardened

    steps = [step for defence in suite.defences.values() for step in defence]
    parts = [part for step in steps for part in (step, *getattr(step, "of", ()))]
    return list(dict.fromkeys(part.path for part in parts if isinstance(part, Hardened)))


def _absent(paths: Sequence[Path]) -> list[Path]:
    return [path for path in dict.fromkeys(paths) if not path.exists()]


def _elsewhere(suite: Suite, weights: Path | None, hardened: Path | None) -> Suite:
    """``suite`` with its files taken from other folders."""
    from qnad_art.benchmark.defences.base import Defence
    from qnad_art.benchmark.defences.hardened import Hardened
    from qnad_art.pretrained import PRETRAINED

    def moved(step: Defence) -> Defence:
        if isinstance(step, Hardened) and step.folder not in PRETRAINED and hardened is not None:
            return step.model_copy(update={"folder": str(hardened.resolve() / step.path.name)})
        parts = getattr(step, "of", None)
        return step.model_copy(update={"of": tuple(map(moved, parts))}) if parts else step

    models = {
        label: model.model_copy(
            update={"weights": str(weights.resolve() / Path(model.weights).name)}
        )
        if model.weights and weights is not None
        else model
        for label, model in suite.models.items()
    }
    defences = {label: tuple(map(moved, steps)) for label, steps in suite.defences.items()}
    return suite.model_copy(update={"models": models, "defences": defences})
