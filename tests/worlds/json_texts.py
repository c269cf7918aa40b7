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
    [
        *(rf"\{letter}" for letter in '"\\/bfnrt'),
        r"\u0000",
        r"\u0041",
        r"\u00e9",
        r"\uFFFD",
        r"\u2028",
    ]
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
def bracketed(draw: st.DrawFn, brackets: str, items: st.SearchStrategy[list[str]]) -> str:
    """Items between brackets, with commas, and whitespace anywhere."""
    space = draw(spaces)
    inside = f"{space},".join(f"{draw(spaces)}{item}" for item in draw(items))
    return brackets[0] + inside + space + brackets[1]


def arrays(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return bracketed("[]", st.lists(items, max_size=3))


def objects(members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return bracketed("{}", st.lists(members, max_size=3))


def members(
    names: st.SearchStrategy[str], values: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    """`"name":value`, as it stands in objects."""
    return st.tuples(names, spaces, st.just(":"), spaces, values).map("".join)


def values_of(strings: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Any JSON value whose strings are these."""
    literals = st.sampled_from(["true", "false", "null", "{}", "[]"])
    return st.recursive(
        st.one_of(literals, numbers, strings),
        lambda inner: st.one_of(arrays(inner), objects(members(strings, inner))),
        max_leaves=4,
    )


values = values_of(strings)
unicode_values = values_of(unicode_strings)

_names = st.sampled_from(
    ['"stream"', '"direct"', '"ack"', '"me"', '"you"', r'"y\u006fu"', '""', "null"]
)
_header_values = st.one_of(*[_names] * 7, values)
_fields = st.one_of(
    members(st.sampled_from([f'"{name}"' for name in HEADER_FIELDS]), _header_values),
    members(keys((*HEADER_FIELDS, "data", "turnId"), strings), _header_values),
    members(strings, values),
)
any_object = objects(_fields)
"""An object that may be a message: header fields, often of the right type, and others."""

messages = bracketed(
    "{}", st.lists(_fields, max_size=4).map(lambda found: ['"type":"ack"', *found])
)
"""An object that has a `type` (which a later field may overrule)."""


@st.composite
def presences(draw: st.DrawFn) -> str:
    """Valid presences of the peer "me", without lone surrogates."""
    others = members(unicode_strings, unicode_values)
    agent = unicode_strings.filter(lambda text: text != '""')
    card = members(keys(("agentId", "id", "name"), unicode_strings), unicode_values)
    agents = arrays(st.one_of(agent, objects(card)))
    data = objects(st.one_of(others, members(st.just('"agents"'), agents)))
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
                st.sampled_from(
                    [b"", b'"', b"\\", b",", b"{", b"}", b"[", b"]", b"NaN", b"0", b"\n"]
                ),
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
    """The value with everything that `loads` forgets: the order of fields, the letters of
    numbers."""

    def number(literal: str) -> tuple[str, str]:
        return ("number", literal)

    return json.loads(
        text,
        parse_int=number,
        parse_float=number,
        object_pairs_hook=lambda pairs: ("object", list(dict(pairs).items())),
    )
