"""Attack budgets as people write them."""

from __future__ import annotations

import math

from qnad_art.errors import InvalidInputError


def parse_budget(text: str, name: str = "--epsilon", *, most: float = 1.0) -> float:
    """An attack budget from a decimal or a fraction such as ``6/255``, in units of the input.

    Args:
        text: the number.
        name: what the error calls it.
        most: the largest valid one; 1 for L∞ (pixels lie in [0, 1]), infinite for other norms.

    Raises:
        InvalidInputError: another text, or a number that is not in (0, ``most``].
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
