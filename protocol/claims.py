"""One id, one owner: what a peer claims its id with, as the relay keeps it.

A peer may say a secret before its first presence (rule 16 in docs/protocol.md). While its id is
here, only connections that know this secret may announce this id. The relay keeps a hash of the
secret, and shows that to nobody: it is in no message, log, status or error.
"""

import hmac
from hashlib import sha256
from typing import Final

import attrs
import msgspec

from protocol.codec import MASK, data_of, decode_value
from protocol.envelope import ErrorCode, Refusal, Text

CLAIM_CHARS_MIN: Final = 16
CLAIM_CHARS_MAX: Final = 256
"""So many characters a secret must have, and may have."""


@attrs.frozen
class Claim:
    """A claim: `digest` is the SHA-256 of the secret (32 bytes). `takes_over`: the other
    connections of the id shall end.

    >>> Claim.of("correct horse battery", takes_over=False)
    Claim(takes_over=False)
    """

    digest: bytes = attrs.field(repr=False)
    takes_over: bool = False

    @classmethod
    def of(cls, secret: str, *, takes_over: bool) -> "Claim":
        """The claim of whoever knows this secret, which is Unicode without lone surrogates."""
        return cls(sha256(secret.encode()).digest(), takes_over)


def same_owner(one: Claim | None, other: Claim | None) -> bool:
    """Both know the same secret, or neither has claimed anything.

    How long this takes says nothing about the secrets.
    """
    if one is None or other is None:
        return one is other
    return hmac.compare_digest(one.digest, other.digest)


def read_claim(text: Text) -> Claim | None:
    """What the `data` of a `capabilities` claims. None: nothing, or `data` is no object.

    Raises Refusal (`bad_field`).

    >>> read_claim(b'{"type":"capabilities","data":{"claim":"0123456789abcdef"}}')
    Claim(takes_over=False)
    """
    try:
        data = data_of(text)
        secret, takes_over = (
            decode_value(data[name]) if name in data else None for name in ("claim", "takeover")
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not (takes_over is None or isinstance(takes_over, bool)) or (takes_over and secret is None):
        sentence = "`data.takeover` is true or false, and it needs `data.claim`"
        raise Refusal(ErrorCode.BAD_FIELD, sentence)
    if secret is None:
        return None
    if (
        not isinstance(secret, str)
        or not CLAIM_CHARS_MIN <= len(secret) <= CLAIM_CHARS_MAX
        or MASK in secret
    ):
        sentence = f"`data.claim` has {CLAIM_CHARS_MIN} to {CLAIM_CHARS_MAX} characters"
        raise Refusal(ErrorCode.BAD_FIELD, sentence)
    return Claim.of(secret, takes_over=bool(takes_over))
