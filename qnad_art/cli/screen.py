"""What commands print on: names, paths and messages are text there, never markup or commands."""

from __future__ import annotations

import unicodedata
from typing import Any

import rich.console
from rich.text import Text


class Console(rich.console.Console):
    """A console that shows every string as it is, and control characters by their escapes.

    Names in suites, run folders and plugins are other people's: in a terminal, an escape sequence
    could rewrite what it shows.
    """

    def __init__(self, **settings: Any) -> None:
        plain = {"highlight": False, "markup": False, "emoji": False}
        super().__init__(**{**plain, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Strings on their way to the screen, those in tables too."""
        return super().render_str(printable(text), **settings)


def printable(text: str) -> str:
    """Text with control and formatting characters escaped, but for line breaks and tabs."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return character.encode("unicode_escape").decode()
