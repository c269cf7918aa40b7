"""Bounds and overflow of the two mailboxes."""

from actors.frames import Batch
from actors.relay.ledger import Ledger
from actors.relay.mailboxes import Inbox, Outbox
from protocol.envelope import Inbound
from protocol.limits import Limits


def outbox(limits: Limits) -> Outbox:
    return Outbox(limits, Ledger(2**30))


def batch(*texts: bytes) -> Batch:
    return Batch(texts)


def test_an_outbox_gives_in_order_and_counts_what_it_holds() -> None:
    box = outbox(Limits())
    assert box.put(batch(b"1", b"22"))
    assert box.put(batch(b"3"))
    assert (box.messages, box.bytes) == (3, 2 + 1 + 2 + 2 + 2 + 1)
    first = box.take()
    assert first is not None
    assert first.texts == (b"1", b"22")
    assert (box.messages, box.bytes) == (1, 3)
    box.clear()
    assert box.take() is None
    assert (box.messages, box.bytes) == (0, 0)


def test_an_outbox_refuses_beyond_its_messages() -> None:
    box = outbox(Limits(mailbox_messages_max=2))
    assert box.put(batch(b"1"))
    assert box.put(batch(b"2"))
    assert not box.put(batch(b"3"))
    assert box.messages == 2


def test_an_outbox_refuses_beyond_its_bytes() -> None:
    limits = Limits(message_bytes_max=1024, presence_bytes_max=1024, mailbox_bytes_max=2048)
    box = outbox(limits)
    assert box.put(batch(b"x" * 2000))
    assert not box.put(batch(b"x" * 100))


def test_an_empty_outbox_takes_any_one_batch_so_that_a_roster_always_fits() -> None:
    box = outbox(Limits(mailbox_messages_max=2))
    assert box.put(batch(*[b"x"] * 100))
    assert not box.put(batch(b"y"))


class Sender:
    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.left = count

    def give(self) -> list[Inbound]:
        given = min(self.left, 4)
        self.left -= given
        return [self.name.encode()] * given

    @property
    def waiting(self) -> bool:
        return self.left > 0


def test_control_overtakes_data_and_wakes() -> None:
    wakes: list[None] = []
    inbox: Inbox[Sender, str] = Inbox(lambda: wakes.append(None))
    assert not inbox
    inbox.ready(Sender("flood", 10**9))
    inbox.tell("stop")
    assert len(wakes) == 1
    assert list(inbox.take_control()) == ["stop"]
    assert [sender.name for sender in inbox.take_ready()] == ["flood"]
    assert not inbox


def test_senders_that_were_not_served_are_first_in_the_next() -> None:
    inbox: Inbox[Sender, str] = Inbox(lambda: None)
    for name in "abc":
        inbox.ready(Sender(name, 1))
    ready = inbox.take_ready()
    ready.popleft()
    inbox.ready(Sender("d", 1))
    inbox.put_back(ready)
    assert [sender.name for sender in inbox.take_ready()] == ["b", "c", "d"]
