"""What waits to be sent: bounds, pace, arrays, frames, and what the relay tells."""

import json
from typing import Any

import pytest

from protocol.limits import MembershipLimits
from protocol.member.errors import NotConnected, QueueFull, TooLarge
from protocol.member.messages import Message
from protocol.member.outgoing import Frame, Outgoing, bytes_of


def told(accept: Any = ("batch",), **bounds: Any) -> Message:
    data = {"accept": list(accept), "limits": bounds}
    return Message({"type": "capabilities_response", "from": "relay", "data": data})


def outgoing(*, messages: int = 100, bounds: Any = None, **options: Any) -> Outgoing:
    """A queue with a connection, over which the relay has told its bounds."""
    queue = Outgoing(MembershipLimits(queue_messages_max=messages, turns_max=2), **options)
    queue.is_connected = True
    queue.learn(told(**(bounds or {})))
    return queue


def take(queue: Outgoing, at: float = 0.0) -> list[Any]:
    """The messages of the next frame."""
    frame = queue.next_frame(at, 0.0)
    assert isinstance(frame, Frame)
    messages = json.loads(frame.text)
    return messages if isinstance(messages, list) else [messages]


def test_messages_leave_in_order_each_with_its_ticket() -> None:
    queue = outgoing()
    assert [queue.offer(f"{number}") for number in range(3)] == [1, 2, 3]
    assert [queue.next_frame(0.0, 0.0) for _ in range(2)] == [Frame("[0,1,2]", (1, 2, 3)), None]


def test_a_withdrawn_message_is_gone_and_its_room_is_free() -> None:
    queue = outgoing(messages=2)
    first, _ = queue.offer("1"), queue.offer("2")
    queue.withdraw(first)
    queue.withdraw(first)
    assert queue.has_room
    assert take(queue) == [2]
    assert len(queue) == 0


def test_the_bounds_count_messages_and_bytes() -> None:
    queue = outgoing(messages=2)
    queue.offer("1")
    queue.offer("2")
    assert not queue.has_room
    with pytest.raises(QueueFull, match="at most 2"):
        queue.offer("3")
    heavy = Outgoing(MembershipLimits(queue_bytes_max=1024))
    heavy.offer("x" * 1023)
    assert heavy.has_room
    heavy.offer("\u00e9")
    assert not heavy.has_room


def test_short_replies_may_wait_beyond_the_bounds() -> None:
    queue = outgoing(messages=1)
    queue.offer("1")
    for _ in range(2):
        queue.offer("reply", is_reply=True)
    with pytest.raises(QueueFull):
        queue.offer("reply", is_reply=True)


def test_without_a_connection_messages_wait_or_are_refused() -> None:
    Outgoing(MembershipLimits()).offer("1")
    with pytest.raises(NotConnected):
        Outgoing(MembershipLimits(), waits=False).offer("1")
    outgoing(waits=False).offer("1")


def test_who_waits_for_each_message_may_queue_more_while_connected() -> None:
    queue = outgoing(messages=2, overfill=2)
    for number in range(4):
        queue.offer(f"{number}")
    with pytest.raises(QueueFull):
        queue.offer("4")
    dropped = queue.disconnected()
    assert [(lost.ticket, type(lost.error)) for lost in dropped] == [(4, QueueFull), (3, QueueFull)]
    assert not queue.has_room


def test_or_loses_all_of_it_with_the_connection() -> None:
    queue = outgoing(overfill=2, waits=False)
    queue.offer("1")
    (lost,) = queue.disconnected()
    assert isinstance(lost.error, NotConnected)


def test_who_was_told_that_it_waits_loses_nothing_with_the_connection() -> None:
    for waits in (True, False):
        queue = outgoing(waits=waits)
        queue.offer("1")
        assert queue.disconnected() == []
        assert len(queue) == 1


def test_a_relay_that_has_not_told_its_bounds_is_waited_for() -> None:
    queue = Outgoing(MembershipLimits())
    queue.offer("1")
    assert queue.next_frame(1.0, 5.0) == 5.0
    assert queue.next_frame(5.0, 5.0) == Frame("1", (1,))


def test_the_pace_is_below_the_relays() -> None:
    queue = outgoing(bounds={"messagesPerSecond": 10, "messagesBurst": 4})
    for number in range(4):
        queue.offer(f"{number}")
    assert take(queue, 1.0) == [0, 1]  # half of the burst
    assert queue.next_frame(1.0, 0.0) == pytest.approx(1.0 + 1 / 9)
    assert take(queue, 1.0 + 1 / 9) == [2]


def test_where_frames_are_counted_messages_share_them_up_to_their_size() -> None:
    queue = outgoing(bounds={"framesPerSecond": 10, "frameBytes": 9})
    for number in range(10, 17):
        queue.offer(f"{number}")
    frame = queue.next_frame(0.0, 0.0)
    assert isinstance(frame, Frame)
    assert frame.text == "[10,11]"
    queue.offer("x")
    assert queue.next_frame(0.0, 0.0) == pytest.approx(1 / 9)
    queue = outgoing(bounds={"framesPerSecond": 10, "frameBytes": 10})
    for number in range(10, 17):
        queue.offer(f"{number}")
    assert take(queue) == [10, 11, 12]  # ten characters


def test_an_array_is_no_longer_than_a_message_may_be() -> None:
    for bounds in ({"messageBytes": 9}, {"messageBytes": 9, "framesPerSecond": 10}):
        queue = outgoing(bounds=bounds)
        for number in range(10, 14):
            queue.offer(f"{number}")
        assert take(queue) == [10, 11]
        assert queue.check("1" * 9) == 9


def test_a_long_message_counts_as_the_frames_that_it_takes() -> None:
    queue = outgoing(bounds={"framesPerSecond": 10, "frameBytes": 100})
    for size in (100, 101, 1):
        queue.offer("1" * size)
    take(queue, 1.0)
    assert queue.next_frame(1.0, 0.0) == pytest.approx(1.0 + 1 / 9)
    take(queue, 2.0)
    assert queue.next_frame(2.0, 0.0) == pytest.approx(2.0 + 2 / 9)


def test_a_relay_that_takes_no_arrays_gets_none() -> None:
    for accept in ((), ("other",)):
        queue = outgoing()
        queue.learn(told(accept))
        for number in range(3):
            queue.offer(f"{number}")
        frames = [queue.next_frame(0.0, 0.0) for _ in range(4)]
        assert frames == [Frame("0", (1,)), Frame("1", (2,)), Frame("2", (3,)), None]


def test_an_array_keeps_to_the_pace_of_messages() -> None:
    queue = outgoing(bounds={"framesPerSecond": 10, "messagesPerSecond": 10, "messagesBurst": 4})
    for number in range(5):
        queue.offer(f"{number}")
    assert take(queue) == [0, 1]


def test_what_the_relay_would_drop_is_refused() -> None:
    queue = outgoing(bounds={"messageBytes": 4})
    assert queue.check("1234") == 4
    for text in ("12345", "\u00e9\u00e9\u00e9"):
        with pytest.raises(TooLarge, match="takes 4"):
            queue.offer(text)


def test_a_connection_that_cannot_split_bounds_messages_by_frames() -> None:
    edge = {"framesPerSecond": 10, "frameBytes": 4}
    outgoing(bounds=edge).offer("12345")
    queue = outgoing(bounds=edge, splits=False)
    queue.offer("1234")
    with pytest.raises(TooLarge, match="parts"):
        queue.offer("12345")
    outgoing(bounds={"frameBytes": 4}, splits=False).offer("12345")  # nobody counts frames


@pytest.mark.parametrize(
    "nonsense", [None, True, False, "10", -1, 0, [], {}, float("inf"), float("nan"), 10**400]
)
def test_nonsense_among_the_bounds_changes_nothing(nonsense: Any) -> None:
    queue = outgoing(bounds={"messagesPerSecond": 10, "messageBytes": 50, "frameBytes": 30})
    names = ("messageBytes", "messagesPerSecond", "messagesBurst", "frameBytes")
    queue.learn(told(**dict.fromkeys(names, nonsense)))
    queue.check("x" * 50)
    with pytest.raises(TooLarge):
        queue.check("x" * 51)
    for _ in range(6):
        queue.offer("1")
    while isinstance(due := queue.next_frame(0.0, 0.0), Frame):
        pass
    assert due == pytest.approx(1 / 9)


def test_nonsense_about_frames_changes_nothing_and_silence_about_them_does() -> None:
    queue = outgoing(bounds={"framesPerSecond": 10})
    for at, value in enumerate((True, "x", 0, None), start=1):
        queue.learn(told((), framesPerSecond=value))
        queue.offer("1")
        second = queue.offer("2")
        assert take(queue, float(at)) == [1]
        assert isinstance(queue.next_frame(float(at), 0.0), Frame) is (value is None)
        queue.withdraw(second)


@pytest.mark.parametrize("bounds", [None, 7, [], "x"])
def test_bounds_that_are_none_change_nothing(bounds: Any) -> None:
    queue = outgoing(bounds={"messageBytes": 5})
    queue.learn(Message({"type": "capabilities_response", "data": {"limits": bounds}}))
    with pytest.raises(TooLarge):
        queue.check("123456")


def test_more_to_send_is_told_once() -> None:
    queue = outgoing()
    assert queue.take_news()
    assert not queue.take_news()
    queue.offer("1")
    assert queue.take_news()


def test_the_bytes_of_a_text_are_those_of_utf_8() -> None:
    assert [bytes_of(text) for text in ("", "a", "\u00e9", "\U0001f916")] == [0, 1, 2, 4]
