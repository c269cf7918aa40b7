"""What a terminal shows: text from a mesh is text, whatever it holds.

Anybody in a mesh may say anything, and a terminal obeys some of it: colours, titles, keys. So
what is not printable is written as an escape. Programs get JSON (`--json`), a line for each thing.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

WIDTH_MAX: Final = 60
"""A column of a table is not wider than that."""


def plain(text: str, also: str = "") -> str:
    """The text, with escapes for what is not printable, except the characters in `also`.

    >>> plain("a\x1b[31m\u202eb\\n"), plain("one\\ntwo", also="\\n")
    ('a\\\\x1b[31m\\\\u202eb\\\\n', 'one\\ntwo')
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in also else ascii(c)[1:-1] for c in text)
    return "".join(shown)


def answer(text: str) -> str:
    """What an agent has said, as it is, except for what a terminal would obey. A pipe gets it to
    the letter."""
    return plain(text, also="\n\t") if sys.stdout.isatty() else text


def value(data: Any) -> str:
    """Any JSON in one line, a text without its quotes.

    >>> value("hello"), value({"a": [1]}), value(None)
    ('hello', '{"a":[1]}', '')
    """
    if data is None:
        return ""
    if isinstance(data, str):
        return plain(data)
    return plain(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def say(text: str, end: str = "\n") -> None:
    """Write to stdout at once. What UTF-8 cannot have is written as an escape."""
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + end)
    sys.stdout.flush()


def say_json(data: Any) -> None:
    """One line of JSON, in ASCII."""
    say(json.dumps(data, separators=(",", ":")))


def note(text: str) -> None:
    """Something that is no result, on stderr."""
    sys.stderr.write(f"{plain(text)}\n")
    sys.stderr.flush()


def progress(text: str) -> None:
    """How far long work is, in one line of a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{plain(text)}")
        sys.stderr.flush()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns with two spaces between them.

    >>> print(table(("PEER", "N"), [("ann", "1"), ("robert", "2")]))
    PEER    N
    ann     1
    robert  2
    """
    cut = [[_cut(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cut, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in ([*head], *cut)
    ]
    return "\n".join(lines)


def _cut(cell: str) -> str:
    cell = plain(cell)
    return cell if len(cell) <= WIDTH_MAX else f"{cell[: WIDTH_MAX - 1]}…"
