"""Keeping tokens out of what is logged."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"

_NAMES = re.compile(r"(^|[^a-z])(token|secret|passw(or)?d|api_?key|credentials?)s?([^a-z]|$)", re.I)
_USER_OF_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST = 6
"""Shorter values of variables (``1``, ``true``) are no secrets, and words of any text."""


def hide(value: Any) -> Any:
    """JSON content without secrets.

    Hidden are: what stands under a name such as ``token`` or ``password``, the values of
    environment variables of such names wherever they occur, and user names and passwords in URLs.
    """
    if isinstance(value, str):
        return hide_in(value)
    if isinstance(value, Mapping):
        return {
            hide_in(str(name)): HIDDEN if _NAMES.search(str(name)) and inner else hide(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [hide(inner) for inner in value]
    return value


def hide_in(text: str) -> str:
    """As :func:`hide`, of text."""
    for name, secret in os.environ.items():
        if _NAMES.search(name) and len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    return _USER_OF_URL.sub(f"{HIDDEN}@", text)
