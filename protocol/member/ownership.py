"""Whose the peer's id is: what a connection claims before its first presence.

The claim is the `owner`, a secret. The relay keeps a hash of it, and shows it to nobody. As long as
the id has a connection, others that claim it are refused (`id_taken`), unless they know the secret:
further connections of this peer do, and other programs that were given the same one.
"""

import re
from typing import Any, Final

from protocol.claims import CLAIM_CHARS_MAX, CLAIM_CHARS_MIN
from protocol.member.messages import write_message

_UNFIT: Final = re.compile("[\ud800-\udfff\ufffe]")
"""What the relay takes in no secret: lone surrogates, and the character that it puts there."""


class Ownership:
    """The claim of the peer `id`. `owner` None: it claims nothing.

    `takeover`: its first connection ends all others that have the id and the same owner. Raises
    ValueError.
    """

    def __init__(self, id: str, owner: str | None, *, takeover: bool = False) -> None:
        if owner is not None and not _is_owner(owner):
            bounds = f"{CLAIM_CHARS_MIN} to {CLAIM_CHARS_MAX} characters"
            raise ValueError(f"an owner is a text of {bounds} that nobody can guess")
        if takeover and owner is None:
            raise ValueError("to take over an id, give the owner that it was joined with")
        self._id = id
        self._owner = owner
        self._takeover = takeover

    @property
    def is_claimed(self) -> bool:
        """The peer claims its id."""
        return self._owner is not None

    def text(self, turn_id: str) -> str:
        """The `capabilities` that claims the id."""
        claim: dict[str, Any] = {"claim": self._owner}
        if self._takeover:
            claim["takeover"] = True
        fields = {"type": "capabilities", "from": self._id, "turnId": turn_id}
        return write_message({**fields, "data": claim})

    def joined(self) -> None:
        """The id is this peer's now: from here on it takes over from nobody."""
        self._takeover = False


def _is_owner(owner: object) -> bool:
    if not isinstance(owner, str) or not CLAIM_CHARS_MIN <= len(owner) <= CLAIM_CHARS_MAX:
        return False
    return _UNFIT.search(owner) is None
