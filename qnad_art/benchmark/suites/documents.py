"""YAML that people write: plain data only, with the line of every value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qnad_art.errors import InvalidInputError

LARGEST = 100_000
"""Largest size of a document in bytes: a hundred suites, which are read in two seconds."""

Place = Sequence[str | int]
"""Keys and indices on the way to a value."""


class _Loader(yaml.SafeLoader):
    """Scalars are read as in YAML 1.2: ``no`` is a word, and 1e-3 is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Aliases of aliases grow without bounds (the "billion laughs" attack).
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*) are not read", problem_mark=mark)
        return super().compose_node(parent, index)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first
    )


@dataclass(frozen=True)
class Document:
    """A YAML file: its value, and the tree from which the line of each part is known."""

    path: Path
    value: Any
    _root: yaml.Node

    def line(self, place: Place, label: Callable[[Any], str | None]) -> int:
        """Line of the value at ``place``, or of the nearest part around it that exists.

        ``label`` gives the label of an item in a list that stands for a mapping.
        """
        node, line = self._root, self._root.start_mark.line + 1
        for part in place:
            for key, child, mark in _children(node, label):
                if key == part:
                    node, line = child, mark.line + 1
                    break
        return line


def read_document(path: Path) -> Document:
    """Read a YAML file of plain data.

    Raises:
        InvalidInputError: the file is missing, too large, not UTF-8 or not YAML, or has tags,
            aliases, a repeated key or a number that is not finite; the message names the line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > LARGEST:
        raise InvalidInputError(f"{path} is too large: a suite has at most {LARGEST:,} bytes.")
    try:
        root, value = _parse(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidInputError(f"{path}{line}: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInputError(f"{path} is not a YAML file: {error}.") from error
    return Document(path, value, root)


def _parse(text: bytes) -> tuple[yaml.Node, Any]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise ValueError("it is empty")
        _check(root)
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def _check(node: yaml.Node) -> None:
    """Refuse repeated keys, keys that are lists or mappings, and numbers that are not finite."""
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":float"):
        try:
            finite = math.isfinite(float(node.value))
        except ValueError:
            finite = False
        if not finite:
            _refuse(node, f"{node.value} is not a finite number")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse(key, "a key must be a word")
            if key.value in seen:
                _refuse(key, f"the key {key.value!r} is already given in line {seen[key.value]}")
            seen[key.value] = key.start_mark.line + 1
            _check(value)


def _refuse(node: yaml.Node, problem: str) -> None:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _children(
    node: yaml.Node, label: Callable[[Any], str | None]
) -> Iterator[tuple[str | int | None, yaml.Node, yaml.Mark]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.value, value, key.start_mark
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield index, item, item.start_mark
            plain = yaml.constructor.SafeConstructor().construct_object(item, deep=True)
            yield label(plain), item, item.start_mark
