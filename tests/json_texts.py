"""JSON as it may stand on the wire: Hypothesis strategies for texts, not for values.

`json.dumps` writes one of the many texts of a value. These write all of them: every number format,
every escape (lone surrogates included), whitespace, keys twice, keys in escapes.
"""

import json
from typing import Any

from hypothesis import strategies as st

HEADER_FIELDS = ("type", "from", "to", "instanceId", "targetInstanceId")

spaces = st.sampled_from(["", "", "", " ", "\n", "\t \r\n"])
numbers = st.one_of(
    st.sampled_from(["0", "-0", "1E+5", "1e5", "-0.0", "1.50", "1e999", "-1e-999", "9" * 40]),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
_characters = st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"])
_escapes = st.sampled_from(
    [*(rf"\{letter}" for letter in '"\\/bfnrt'), r"\u0000", r"\u0041", r"\u00e9", r"\uFFFD", r"\u2028"]
)
_surrogates = st.sampled_from(
    [
        *(r"\ud83d\ude00", r"\uD83D\uDE00"),  # pairs
        *(r"\ud83d", r"\uDE00", r"\ude00\ud83d", r"\ud83d\ud83d\ude00", r"\ud83dx"),  # lone ones
        *(r"\\ud83d", r"\\\ud83d", r"\ud83d\\ude00"),  # beside escaped backslashes
    ]
)
_pieces_of_unicode = _characters | _escapes
_pieces = _characters | _escapes | _surrogates


def _quoted(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(pieces, max_size=4).map(lambda found: '"' + "".join(found) + '"')


strings = _quoted(_pieces)
unicode_strings = _quoted(_pieces_of_unicode)


@st.composite
def keys(draw: st.DrawFn, names: tuple[str, ...], strings: st.SearchStrategy[str]) -> str:
    """One of `names`, some of its letters written as escapes, or any other string."""
    name = draw(st.sampled_from(names) | st.none())
    if name is None:
        return draw(strings)
    escaped = draw(st.sets(st.integers(0, len(name) - 1), max_size=2))
    letters = (f"\\u{ord(c):04x}" if i in escaped else c for i, c in enumerate(name))
    return '"' + "".join(letters) + '"'


@st.composite
def sequences(draw: st.DrawFn, brackets: str, items: st.SearchStrategy[str], least: int = 0) -> str:
    """`items` between brackets, with commas, and whitespace anywhere."""
    found = draw(st.lists(items, min_size=least, max_size=3))
    space = draw(spaces)
    inside = f"{space},".join(f"{draw(spaces)}{item}" for item in found)
    return brackets[0] + inside + space + brackets[1]


def members(
    names: st.SearchStrategy[str], values: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    """`"name":value`, the inside of objects."""
    return st.tuples(names, spaces, spaces, values).map(
        lambda parts: "{}{}:{}{}".format(*parts)  # noqa: UP032
    )


def values_of(strings: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Any JSON value whose strings are these."""
    literals = st.sampled_from(["true", "false", "null", "{}", "[]"])
    return st.recursive(
        st.one_of(literals, numbers, strings),
        lambda inner: st.one_of(sequences("[]", inner), sequences("{}", members(strings, inner))),
        max_leaves=4,
    )


values = values_of(strings)
unicode_values = values_of(unicode_strings)

_names = st.sampled_from(
    ['"stream"', '"broadcast"', '"ack"', '"me"', '"you"', r'"y\u006fu"', '""', "null"]
)
_header_values = st.one_of(_names, _names, _names, values)
_fields = st.one_of(
    members(st.sampled_from([f'"{name}"' for name in HEADER_FIELDS]), _header_values),
    members(keys((*HEADER_FIELDS, "data", "turnId"), strings), _header_values),
    members(strings, values),
)
objects = sequences("{}", _fields)
"""Objects that may be messages: header fields, often of the right type, and others."""

messages = st.tuples(spaces, objects, spaces).map(
    lambda parts: parts[0] + parts[1].replace("{", '{"type":"stream",', 1) + parts[2]
    if not parts[1][1:].strip(" \n\t\r}") == ""
    else '{"type":"stream"}'
)
"""Texts of objects that have a `type` (which a later one may overrule)."""


@st.composite
def presences(draw: st.DrawFn) -> str:
    """Valid presences of the peer "me", without lone surrogates."""
    others = members(unicode_strings, unicode_values)
    agent = unicode_strings.filter(lambda text: text != '""')
    card = members(keys(("agentId", "id", "name"), unicode_strings), unicode_values)
    agents = sequences("[]", st.one_of(agent, sequences("{}", card)))
    data = sequences("{}", st.one_of(others, members(st.just('"agents"'), agents)))
    fields = [*draw(st.lists(others, max_size=3)), '"type":"presence"', '"from":"me"']
    if draw(st.booleans()):
        fields.append('"data":' + draw(st.one_of(data, st.just("null"))))
    return "{" + ",".join(draw(st.permutations(fields))) + "}"


@st.composite
def damaged(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> bytes:
    """A text with a few bytes of it dropped, doubled or replaced."""
    text = bytearray(draw(texts).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(text) - 1)))
        patch = draw(
            st.one_of(
                st.sampled_from([b"", b'"', b"\\", b",", b"{", b"}", b"[", b"]", b"NaN", b"0", b"\n"]),
                st.binary(min_size=1, max_size=1),
            )
        )
        text[at : at + draw(st.integers(0, 2))] = patch
    return bytes(text)


def _refuse(literal: str) -> None:
    raise ValueError(literal)


def loads(text: str | bytes) -> Any:
    """`json.loads`, without what only Python takes for JSON. Lone surrogates pass."""
    return json.loads(text if isinstance(text, str) else text.decode(), parse_constant=_refuse)


def exact(text: str | bytes) -> Any:
    """The value with everything that `loads` forgets: the order of fields, the letters of numbers."""

    def number(literal: str) -> tuple[str, str]:
        return ("number", literal)

    return json.loads(
        text,
        parse_int=number,
        parse_float=number,
        object_pairs_hook=lambda pairs: ("object", list(dict(pairs).items())),
    )
