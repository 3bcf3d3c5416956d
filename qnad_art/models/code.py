"""Networks of your own without a plugin: code, named by ``FILE.py:NAME`` or ``MODULE:NAME``.

Only :func:`find_model` runs code, and only a user calls it, in Python or on the command line. A
weights file, a saved folder or a suite cannot make it run.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from qnad_art.errors import InvalidInputError, QnadError
from qnad_art.models.architectures import Architecture, Model, ModelEntry, is_code, model_entry

TRAINING = {"epochs": 20, "learning_rate": 0.02}
"""Training settings of a network whose code is not a :class:`ModelEntry`."""


def find_model(text: str) -> Model:
    """Find the network that a text names; if the text names code, this **runs the code**.

    ``text`` is a registered name such as ``lenet5``, or ``FILE.py:NAME`` or ``MODULE:NAME`` (of a
    module that Python can import). ``NAME`` is a function or class that makes the network and takes
    no arguments, an ``nn.Module``, or a :class:`~qnad_art.models.architectures.ModelEntry`.

    Returns the registered name or an entry, either of which
    :func:`~qnad_art.models.build_model` takes. Raises UnknownNameError if the name is not
    registered, and InvalidInputError if the code does not exist, fails, or is not a network.
    """
    if not is_code(text):
        model_entry(text)
        return text
    reference = Reference.parse(text)
    with _blamed(reference):
        module = reference.module()
    try:
        made = getattr(module, reference.attribute)
    except AttributeError:
        raise InvalidInputError(
            f"{reference.place} defines no {reference.attribute!r}; write FILE.py:NAME with the "
            "name of a function, class or ModelEntry in it."
        ) from None
    return _entry(made, reference)


def code_address(text: str) -> dict[str, str]:
    """Identify a network's code by the SHA-256 of its file and its name in the file.

    Modules that the file imports do not count. Raises InvalidInputError if the file does not exist.
    """
    reference = Reference.parse(text)
    digest = hashlib.sha256(reference.path.read_bytes()).hexdigest()
    return {"sha256": digest, "name": reference.attribute}


@dataclass(frozen=True)
class Reference:
    """``place:attribute``; the place is a file if it ends in ``.py``, otherwise a dotted module."""

    place: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse text without looking anything up; raises InvalidInputError for another form."""
        place, _, attribute = text.rpartition(":")
        dotted = all(part.isidentifier() for part in place.split("."))
        if not attribute.isidentifier() or not (place.endswith(".py") or dotted):
            raise InvalidInputError(
                f"{text!r} does not name code: write FILE.py:NAME or package.module:NAME."
            )
        return cls(place, attribute)

    def __str__(self) -> str:
        return f"{Path(self.place).name if self.is_file else self.place}:{self.attribute}"

    @property
    def is_file(self) -> bool:
        """Whether the place is a file."""
        return self.place.endswith(".py")

    @property
    def path(self) -> Path:
        """The file; finding the file of a module imports the packages that contain it."""
        if self.is_file:
            found = Path(self.place).resolve()
        else:
            with _blamed(self):
                spec = find_spec(self.place)
            if spec is None or not spec.has_location or spec.origin is None:
                raise InvalidInputError(
                    f"No module {self.place!r} is installed; install it, or name its file: "
                    f"FILE.py:{self.attribute}."
                )
            found = Path(spec.origin)
        if not found.is_file():
            raise InvalidInputError(f"{found} does not exist; write FILE.py:NAME.")
        return found

    def module(self) -> ModuleType:
        """Import the module; a file whose content has changed is imported again."""
        path = self.path
        if not self.is_file:
            return import_module(self.place)
        content = path.read_bytes()
        name = f"qnad_art_own_{hashlib.sha256(bytes(path) + content).hexdigest()[:16]}"
        if name in sys.modules:
            return sys.modules[name]
        loader = _Loader(path, content)
        spec = cast(ModuleSpec, spec_from_file_location(name, path, loader=loader))
        module = sys.modules[name] = module_from_spec(spec)
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


class _Loader(SourceLoader):
    """Loads exactly the content that was hashed, never bytecode of an earlier version."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: Any) -> bytes:
        return self._content


def _entry(made: Any, reference: Reference) -> ModelEntry:
    """Turn the object that code defines into an entry, named by the reference."""
    if isinstance(made, ModelEntry):
        own, training, usual = made.usual.name, made.training, made.usual

        def make(architecture: Architecture) -> Any:
            return made.build(replace(architecture, name=own))
    elif isinstance(made, nn.Module) or callable(made):
        training, usual = TRAINING, Architecture(str(reference), 0, 0, 0)

        def make(architecture: Architecture) -> Any:
            return copy.deepcopy(made) if isinstance(made, nn.Module) else made()
    else:
        raise InvalidInputError(
            f"{reference} is not a network but of type {type(made).__name__}; name a function or "
            "class that makes a network, an nn.Module, or a ModelEntry."
        )

    def build(architecture: Architecture) -> nn.Module:
        with _blamed(reference):
            network = make(architecture)
        if not isinstance(network, nn.Module):
            raise InvalidInputError(
                f"{reference} made an object of type {type(network).__name__}, not an nn.Module."
            )
        return network

    return ModelEntry(replace(usual, name=str(reference)), build, training)


@contextmanager
def _blamed(reference: Reference) -> Iterator[None]:
    """Turn any exception in the code, even an exit, into an error that states its place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, QnadError):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise InvalidInputError(
            f"{reference} failed: {type(error).__name__}: {error} ({frame.filename}, line "
            f"{frame.lineno})."
        ) from error
