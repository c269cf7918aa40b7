"""What was said before a peer came, if it asks for it (rule 21 in docs/protocol.md).

The relay's side is protocol/mesh/recalling.py. One `Recalling` is one peer, over all its
connections:

1. It asks on each connection with which it would join (`ask`), until the relay has answered one of
   them. So what a program has seen does not come again after a loss.
2. Behind the roster the relay says how many old messages follow (`note`), and so many are old
   (`is_old`). They may be cut off in the middle, and go on when the connection has come back.
3. The answer to the question behind the presence comes behind all of them (`end`). So a relay that
   does not know the rule is not waited for, and one that counts wrong makes nothing new old.

What is old is for the program to read, and for nothing else: no command among it is served, and no
answer belongs to a turn.
"""

from typing import Any

from protocol.limits import MembershipLimits
from protocol.member.messages import NOT_FOR_ALL, Message
from protocol.member.outgoing import whole


class Recalling:
    """Asks for the last `count` messages, 0: for none. Raises TypeError, ValueError.

    >>> Recalling(50, MembershipLimits()).ask()
    {'messages': 50}
    """

    def __init__(self, count: int, limits: MembershipLimits) -> None:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"history is a number of messages, not {type(count).__name__}")
        if not 0 <= count <= limits.unread_messages_max:
            bounds = f"from 0 to {limits.unread_messages_max} (unread_messages_max)"
            raise ValueError(f"history is a number of messages {bounds}, not {count}")
        self._count = count
        self._is_asked = False
        self._left = 0  # so many old messages are still to come

    def ask(self) -> dict[str, Any] | None:
        """A connection is about to join. What to ask there (`data.history`); None: nothing."""
        self._left = 0
        self._is_asked = self._count > 0
        return {"messages": self._count} if self._is_asked else None

    def note(self, answer: Message) -> None:
        """The relay has answered nothing that the peer has asked: perhaps old messages follow.

        Longer answers have no turn id, either, and `history` in them is how many it remembers at
        most. But they say more than that.
        """
        history = answer.word("history")
        is_alone = isinstance(history, dict) and len(answer.data) == 1
        if self._is_asked and is_alone and answer.turn_id is None:
            self.end()
            self._left = whole(history.get("messages")) or 0

    def is_old(self, message: Message) -> bool:
        """This message was said before; asked once for each that arrives."""
        if not self._left or message.type in NOT_FOR_ALL or message.is_relays:
            return False
        self._left -= 1
        return True

    def excess(self) -> None:
        """Something has arrived of which nothing is read: an old message, if some are to come, or
        several."""
        self._left = max(0, self._left - 1)

    def end(self) -> None:
        """All that was asked for has come."""
        self._is_asked, self._count, self._left = False, 0, 0
