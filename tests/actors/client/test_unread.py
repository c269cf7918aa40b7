"""What arrived and was not read yet."""

import pytest

from actors.client.unread import Unread
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    Lagged,
)

pytestmark = pytest.mark.anyio


async def test_who_does_not_read_is_told_what_was_dropped() -> None:
    unread: Unread[int] = Unread(MembershipLimits(unread_messages_max=3))
    for number in range(10):
        unread.put(number)
    with pytest.raises(Lagged) as caught:
        await unread.get()
    assert caught.value.count == 7
    assert [await unread.get() for _ in range(3)] == [7, 8, 9]
    unread.end()
    with pytest.raises(StopAsyncIteration):
        await unread.get()


async def test_unread_messages_are_bounded_by_their_size_too() -> None:
    unread: Unread[int] = Unread(MembershipLimits(unread_bytes_max=1024))
    for number in range(3):
        unread.put(number, 600)
    with pytest.raises(Lagged):
        await unread.get()
    assert await unread.get() == 2
