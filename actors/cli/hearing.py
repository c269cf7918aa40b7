"""What a peer hears, for subcommands that listen: messages, and the holes between them."""

from collections.abc import AsyncIterator

from actors.client.peer import Peer
from protocol.member.errors import Gap, Lagged
from protocol.member.messages import Message


async def heard(peer: Peer) -> AsyncIterator[Message | Gap | Lagged]:
    """Everything that arrives, until the peer leaves; an error where some messages are missing."""
    while True:
        try:
            yield await anext(peer)
        except (Gap, Lagged) as hole:
            yield hole
        except StopAsyncIteration:
            return
