"""How deep a JSON text is nested, in a few passes over it, whatever is in it."""

from itertools import accumulate

from protocol.envelope import Text

_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_BRACKETS = bytes.maketrans(b"[{]}", b"(())")
_RUNS = ((16 * b"(", 16 * b")", b"V", b"E"), (4 * b"(", 4 * b")", b"U", b"D"))
_STEPS = bytes.maketrans(b"VU()DE", bytes([16, 4, 1, 256 - 1, 256 - 4, 256 - 16]))  # signed bytes


def without_escaped_quotes(text: Text) -> Text:
    """The JSON text without escaped quotes: every quote in it begins or ends a string."""
    return text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text


def depth(text: Text) -> int:
    """How deep arrays and objects are nested in a JSON text with at least one of them."""
    bare = without_escaped_quotes(text).translate(_BRACKETS, _NEITHER_BRACKETS_NOR_QUOTES)
    # Two quotes in a row are the end of a string and the beginning of the next, or an empty string.
    # Without them every bracket is still inside, or outside.
    bare = bare.replace(b'""', b"")
    if b'"' in bare:
        bare = b"".join(bare.split(b'"')[::2])
    levels = 0
    while (pairs := bare.count(b"()")) and pairs > 0.11 * len(bare):
        bare = bare.replace(b"()", b"")  # as long as it helps, take the innermost level away
        levels += 1
    runs = bare
    for opening, closing, up, down in _RUNS:
        runs = runs.replace(opening, up).replace(closing, down)
    steps = memoryview(runs.translate(_STEPS)).cast("b")
    return levels + max(accumulate(steps), default=0)
