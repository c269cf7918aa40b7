"""Numbers in the `data` of a message, taken only as every language reads them."""

from typing import Any, Final

COUNT_MAX: Final = 2**53
"""Numbers on the wire are at most this, so that every language reads them exactly."""


def number(value: Any, most: int) -> int | float:
    """The value, if it is a number from 0 to `most`. Raises ValueError.

    >>> number(2.5, 3)
    2.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(value)
    return value


def whole_number(value: Any, most: int = COUNT_MAX) -> int:
    """The same, written without a fraction or an exponent.

    >>> whole_number(50)
    50
    """
    found = number(value, most)
    if not isinstance(found, int):
        raise ValueError(value)
    return found
