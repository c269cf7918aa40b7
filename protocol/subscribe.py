"""Reads what a presence says in `data.subscribe`: a wish."""

from typing import Any

from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits
from protocol.wish import ANY_REST, EVERYTHING, Wish


def read_wish(said: Any, limits: Limits) -> Wish:
    """The wish that stands in `data.subscribe`. Raises Refusal (`bad_field`, `too_long`).

    >>> read_wish({"others": False}, Limits())
    Wish(others=False, topics=None, types=None)
    """
    if said is None:
        return EVERYTHING
    if not isinstance(said, dict):
        raise Refusal(ErrorCode.BAD_FIELD, "`data.subscribe` is an object")
    others = said.get("others")
    if others is not None and not isinstance(others, bool):
        raise Refusal(ErrorCode.BAD_FIELD, "`data.subscribe.others` is true or false")
    topics, types = _names(said, "topics", limits), _names(said, "types", limits)
    for pattern in topics or ():
        if ANY_REST in pattern[:-1]:
            sentence = f"in `data.subscribe.topics`, `*` stands only at the end, not as {pattern!r}"
            raise Refusal(ErrorCode.BAD_FIELD, sentence)
    return Wish(others is not False, topics, types)


def _names(said: dict[str, Any], field: str, limits: Limits) -> frozenset[str] | None:
    names = said.get(field)
    if names is None:
        return None
    path = f"data.subscribe.{field}"
    if not _are_texts(names):
        raise Refusal(ErrorCode.BAD_FIELD, f"`{path}` is a list of non-empty strings")
    if len(names) > limits.wish_names_max:
        sentence = f"`{path}` has at most {limits.wish_names_max} strings, not {len(names)}"
        raise Refusal(ErrorCode.BAD_FIELD, sentence)
    longest = max(map(len, names), default=0)
    if longest > limits.id_chars_max:
        sentence = f"a string in `{path}` has at most {limits.id_chars_max} characters"
        raise Refusal(ErrorCode.TOO_LONG, sentence)
    return frozenset(names)


def _are_texts(names: Any) -> bool:
    """It is a list of non-empty Unicode texts."""
    return isinstance(names, list) and all(isinstance(name, str) and name for name in names)
