"""What one connection has sent and the gate has not decided yet, such as most of a long array.

A turn of a connection is a quantum of messages, but an array may hold two thousand, and an
announcement costs as much as dozens. So beyond a quantum the elements wait for the next turn, and
so does what came behind them. After a long announcement what came behind it waits. The order of
what a connection says stays the same, and others are served in between.
"""

from collections.abc import Sequence

from protocol.envelope import Inbound, Text


class Unfinished:
    """Messages of one connection that wait in the gate, oldest first. The rate has counted them.

    `bytes`: those of all that wait. `elements`: texts out of an array; an array in them is no
    message. `messages`: what came behind the array. `dropped`: how many more frames came behind
    that, and were dropped by the rate limit.
    """

    __slots__ = ("bytes", "dropped", "elements", "messages")

    def __init__(self, elements: list[Text], messages: list[Inbound], dropped: int = 0) -> None:
        self.elements = elements
        self.messages = messages
        self.dropped = dropped
        self.bytes = sum(map(len, elements)) + sum(map(len, messages))

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self.elements) + len(self.messages)

    def add(self, messages: Sequence[Inbound], dropped: int) -> None:
        """These came behind all others."""
        self.messages += messages
        self.dropped += dropped
        self.bytes += sum(map(len, messages))

    def take_elements(self, most: int) -> list[Text]:
        """Take out the first elements, at most so many."""
        taken = self.elements[:most]
        del self.elements[:most]
        self.bytes -= sum(map(len, taken))
        return taken
