"""Who was here when the connection was lost, and may be back any moment.

A relay that was started again knows nobody. Its peers come back within seconds, and not all at
once: a message that is sent to one of them by who came first would be refused. So what is for
somebody who was here before waits in the queue until that one is back, or until it has been waited
for long enough (`return_within_s`, from the peer's own return on). Everything else goes at once.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from protocol.limits import MembershipLimits
from protocol.member.messages import RemotePeer
from protocol.member.roster import Roster


class Target(NamedTuple):
    """Whom a direct message is for: `to`, a peer or an agent, and `peer`, the peer that is meant
    where it is named."""

    to: str | None
    peer: str | None


def target_of(fields: Mapping[str, Any]) -> Target | None:
    """Whom a message with these fields is for; None if it is not for one peer.

    >>> target_of({"type": "direct", "to": "bob"})
    Target(to='bob', peer=None)
    """
    to, peer = fields.get("to"), fields.get("targetInstanceId")
    if fields.get("type") != "direct":
        return None
    return Target(to if isinstance(to, str) else None, peer if isinstance(peer, str) else None)


class Returns:
    """The peers that are waited for. `roster`: who is here."""

    def __init__(self, limits: MembershipLimits, roster: Roster) -> None:
        self._limits = limits
        self._roster = roster
        self._away: dict[str, RemotePeer] = {}
        self._names: Counter[str] = Counter()  # of these, and of their agents
        self._due: float | None = None

    def lost(self) -> None:
        """The connection is lost. Everybody may have to come back, or nobody."""
        self._away = {**self._away, **self._roster.peers}
        self._names = Counter(name for peer in self._away.values() for name in _names(peer))
        self._due = None

    def joined(self, at: float) -> None:
        """The peer itself is back."""
        if self._away:
            self._due = at + self._limits.return_within_s

    def seen(self, id: str | None) -> bool:
        """Somebody has come back, or has left for good. True: it was waited for."""
        peer = self._away.pop(id, None) if id is not None else None
        if peer is None:
            return False
        self._names.subtract(_names(peer))
        return True

    def is_away(self, id: str | None) -> bool:
        """This peer is waited for."""
        return id in self._away

    def holds(self, target: Target | None) -> bool:
        """A message for this target waits: who is meant is away, and nobody else can be meant."""
        if target is None or not self._away:
            return False
        if target.peer is not None:
            return target.peer in self._away
        if target.to is None or self._names[target.to] < 1:
            return False
        return all(id in self._away for id in self._roster.hosts(target.to))

    def deadline(self) -> float | None:
        """When (monotonic seconds) nobody is waited for any more; None if nobody is."""
        return self._due if self._away else None

    def expire(self, at: float) -> bool:
        """True: the time is over, and nobody is waited for any more."""
        due = self.deadline()
        if due is None or due > at:
            return False
        self._away = {}
        return True


def _names(peer: RemotePeer) -> tuple[str, ...]:
    return (peer.id, *peer.agents)
