"""Parsing of attack budgets such as 0.1 or 8/255."""

from __future__ import annotations

import math

from qnad_art.errors import InvalidInputError


def parse_budget(text: str, name: str = "--epsilon", *, most: float = 1.0) -> float:
    """Parse an attack budget, a decimal or a fraction such as ``6/255``, in units of the input.

    Args:
        text: the number.
        name: the option's name in error messages.
        most: largest valid budget: 1 for L∞ (pixels lie in [0, 1]), infinite for other norms.

    Raises:
        InvalidInputError: the text is not a number, or the number is not in (0, ``most``].
    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not (0 < value <= most and math.isfinite(value)):
        limit = "" if math.isinf(most) else f" and at most {most:g} (pixels lie in [0, 1])"
        raise InvalidInputError(
            f"{name} is {text!r}; it must be a number above 0{limit}, as a decimal (0.1) or a "
            "fraction (6/255)."
        )
    return value
