"""Texts made to be costly to read, by kind; `python -m tests.worlds.heavy_texts` times them.

What reading costs must not depend on what is in a text, only on how long it is.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

from protocol.codec import Codec
from protocol.envelope import Refusal, Text
from protocol.limits import Limits

Make = Callable[[int], Text]
"""Makes a message of about so many bytes."""


def _data(before: bytes, unit: bytes, after: bytes) -> Make:
    head, tail = b'{"type":"stream","from":"a","data":' + before, after + b"}"
    return lambda size: head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def _string(unit: bytes, end: bytes = b"") -> Make:
    return _data(b'"', unit, end + b'"')


def _list(unit: bytes, first: bytes = b"") -> Make:
    return _data(b"[" + first, unit + b",", b"0]")


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


KINDS: Final[dict[str, Make]] = {
    "a plain string": _string(b"abcdefg "),
    "spaces": _data(b"", b" ", b"0"),
    "a string outside ASCII": _string("ü€😀".encode()),
    "escapes": _string(b"\\n"),
    "pairs of surrogates": _string(b"\\ud83d\\ude00"),
    "lone surrogates": _string(b"\\ud800"),
    "lone low surrogates": _string(b"\\uDC00"),
    "lone surrogates apart": _string(b"\\ud800a"),
    "a lone surrogate among pairs": _string(b"\\ud83d\\ude00", b"\\ud800"),
    "a lone surrogate among escapes": _string(b"\\n", b"\\ud800"),
    "a lone surrogate among backslashes": _string(b"\\\\", b"\\ud800"),
    "lone surrogates as keys": _data(b"{", b'"\\ud800":1,', b'"a":1}'),
    "empty arrays": _list(b"[]"),
    "empty objects": _list(b"{}"),
    "arrays of 4 levels": _list(_deep(4)),
    "arrays of 8 levels": _list(_deep(8)),
    "arrays of 100 levels": _list(_deep(100)),
    "short strings": _list(b'"a"'),
    "strings of brackets": _list(b'"["'),
    "strings of brackets among brackets": _list(b'"[",[]'),
    "escaped quotes and brackets": _string(b'\\"['),
    "short numbers": _list(b"1"),
    "long numbers": _list(b"1" * 4300),
    "a long number in a string": _list(b'"a"', b'"' + b"1" * 5000 + b'",'),
    "equal keys": _data(b"{", b'"a":1,', b'"a":1}'),
}


def main() -> None:
    """Print what each kind costs in milliseconds per MiB: the best of five."""
    codec, size = Codec(Limits()), 2**20
    for kind, make in KINDS.items():
        text, best = make(size), float("inf")
        for _ in range(5):
            began = time.process_time()
            try:
                codec.header(text)
            except Refusal as refusal:
                raise SystemExit(f"{kind}: {refusal.sentence}") from refusal
            best = min(best, time.process_time() - began)
        sys.stdout.write(f"{best * 1000:6.1f}  {kind}\n")


if __name__ == "__main__":
    main()
