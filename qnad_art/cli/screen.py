"""The console of the commands, which prints names, paths and messages as plain text."""

from __future__ import annotations

import unicodedata
from typing import Any

import rich.console
from rich.text import Text


class Console(rich.console.Console):
    """A console that shows strings as they are and escapes control characters.

    Names in suites, run folders and plugins come from other people. In a terminal, an escape
    sequence in such a name could change what is shown.
    """

    def __init__(self, **settings: Any) -> None:
        plain = {"highlight": False, "markup": False, "emoji": False}
        super().__init__(**{**plain, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a string, also in a table, after escaping control characters."""
        return super().render_str(printable(text), **settings)


def printable(text: str) -> str:
    """Escape control and formatting characters except line breaks and tabs."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
        else character
        for character in text
    )
