"""The roster as it changes: waits for the next difference (protocol/member/roster.py)."""

from collections.abc import Mapping
from typing import Self

from actors.client.driver import Driver
from protocol.member.errors import Left
from protocol.member.lifecycle import MemberState
from protocol.member.messages import RemotePeer
from protocol.member.roster import Change, compare


class Changes:
    """The roster as it changes. Made by `Peer.changes`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._seen: Mapping[str, RemotePeer] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for one, except for the first. If this is cancelled, nothing is
        missed. Ends when the peer leaves, and raises what ended it otherwise."""
        member = self._driver.member
        while True:
            change = compare(self._seen or {}, dict(member.roster))
            if self._seen is None or not change.is_empty:
                self._seen = change.here
                return change
            if member.state is MemberState.ENDED:
                if isinstance(member.over, Left):
                    raise StopAsyncIteration
                self._driver.check()
            await self._driver.changed.wait()
