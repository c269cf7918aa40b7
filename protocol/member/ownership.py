"""Whose the peer's id is: what a connection claims before its first presence.

The claim is the `owner`, a secret. The relay keeps a hash of it, and shows it to nobody. As long as
the id has a connection, others that claim it are refused (`id_taken`), unless they know the secret:
further connections of this peer do, and other programs that were given the same one.
"""

from typing import Any, Final

from protocol.member.messages import write_message

OWNER_CHARS_MIN: Final = 16
OWNER_CHARS_MAX: Final = 256


class Ownership:
    """The claim of the peer `id`. `owner` None: it claims nothing.

    `takeover`: its first connection ends all others that have the id and the same owner. Raises
    ValueError.
    """

    def __init__(self, id: str, owner: str | None, *, takeover: bool = False) -> None:
        if owner is not None and not _is_owner(owner):
            bounds = f"{OWNER_CHARS_MIN} to {OWNER_CHARS_MAX} characters"
            raise ValueError(f"an owner is a text of {bounds}, better a random one")
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
    if not isinstance(owner, str) or not OWNER_CHARS_MIN <= len(owner) <= OWNER_CHARS_MAX:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in owner)
