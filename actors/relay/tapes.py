"""One round's messages, on a tape for each wish that connections have.

Connections that want the same share a tape, so a message costs one step for each different wish
that it meets, and framing and joining are done once for each. Most meshes have one tape, that of
the wish for everything.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Final
from weakref import WeakKeyDictionary, ref

import msgspec

from actors.frames import Batch, SharedBatch, text_frame, text_frames, texts_of
from actors.relay.peer import PeerActor
from actors.relay.tape import Tape
from actors.relay.traffic import Traffic
from protocol.envelope import Text
from protocol.mesh.effects import Block, Chosen
from protocol.mesh.wishes import ALL

FRAMED_BYTES_MAX: Final = 1024
"""Presences are framed for all newcomers together if they have at most so many bytes on average:
what a connection costs at rest has room for it (actors/relay/ledger.py). Longer ones are framed
when a socket takes them."""


class Framed(SharedBatch):
    """A block of presences, as newcomers get it. It holds their frames alone."""

    __slots__ = ("_block",)

    def __init__(self, block: Block) -> None:
        super().__init__(text_frames(block.texts))
        self._block = ref(block)

    @property
    def texts(self) -> Sequence[Text]:
        """The presences. The roster has them, unless one has changed since."""
        block = self._block()
        return texts_of(self.frames) if block is None else block.texts

    @property
    def held_bytes(self) -> int:
        """What it costs to hold it."""
        return self.size


class Spool(msgspec.Struct, gc=False):
    """What one tape had: what its receivers get (None: nothing went to all of them), who these
    are, and who gets something else instead (None: nothing). Made for every round."""

    shared: SharedBatch | None
    present: Set[int]
    own: Mapping[int, Batch | None]


def _together(spools: Sequence[Spool]) -> tuple[SharedBatch | None, Mapping[int, Batch | None]]:
    """What went to those who want everything, and to whom went something else instead."""
    plain, *others = spools
    own = dict(plain.own)
    for spool in others:
        own |= dict.fromkeys(spool.present, spool.shared)
        own |= spool.own
    return plain.shared, own


class Tapes:
    """Collects one round. Receivers are named by connection number, wishes by theirs.

    `plain`: the tape of those who want everything. While nobody wants anything else (`differ`), it
    does the same for less. `traffic`: counts what is sent.
    """

    def __init__(self, traffic: Traffic | None = None) -> None:
        self.plain: Final = Tape()
        self._traffic = Traffic() if traffic is None else traffic
        self.differ = False
        self._sent: Counter[int] | None = None  # messages by connection, while somebody watches
        self._tapes: dict[int, Tape] = {ALL: self.plain}
        self._of: dict[int, Tape] = {}  # by connection, if it is not the plain one
        self._dismissed: list[int] = []
        self._framed: WeakKeyDictionary[Block, Framed] = WeakKeyDictionary()

    def want(self, connection: int, wish: int) -> None:
        """From here on a connection, which is present, has this wish. It keeps what it got."""
        before = self._of.pop(connection, self.plain)
        got = before.release(connection)
        tape = self._tapes.get(wish)
        if tape is None:
            tape = self._tapes[wish] = Tape()
        if wish != ALL:
            self._of[connection] = tape
        tape.only((connection,), got)
        tape.admit(connection)
        self.differ = True

    def dismiss(self, connection: int) -> None:
        """From here on the connection gets nothing."""
        self.tape_of(connection).dismiss(connection)
        if self._sent is not None:
            self._sent.pop(connection, None)
        if self.differ:
            self._dismissed.append(connection)

    def tape_of(self, connection: int) -> Tape:
        """The tape of which the connection gets its part."""
        return self._of.get(connection, self.plain)

    @property
    def is_shared(self) -> bool:
        """Something goes to several receivers, so far."""
        return any(tape.is_shared for tape in self._tapes.values())

    def everyone(self, texts: Sequence[Text]) -> None:
        """They go to all who are present."""
        self.others((), texts)

    def others(self, excluded: Collection[int], texts: Sequence[Text]) -> None:
        """They go to all who are present, except these."""
        for text in texts:
            self._put(self._tapes, excluded, text)

    def chosen(self, audience: Chosen, texts: Sequence[Text]) -> None:
        """They go to all who are present and have one of these wishes, with some exceptions."""
        for text in texts:
            self._put(audience.wishes, audience.excluded, text)
        if audience.also:
            self.only(audience.also, texts)

    def _put(self, wishes: Iterable[int], excluded: Collection[int], text: Text) -> None:
        frame, tapes = b"", self._tapes
        if not self.differ:
            self.plain.end_run()
        for wish in wishes:
            tape = tapes.get(wish)  # a mesh on several relays has wishes that nobody has here
            if tape is not None and tape.present:  # nobody may want everything
                frame = frame or text_frame(text)
                tape.frames.append(frame)
        if frame:
            for connection in excluded:
                self.tape_of(connection).leave_out(connection, frame)

    def only(self, connections: Iterable[int], texts: Sequence[Text]) -> None:
        """They go to these, present or not."""
        for connection in connections:
            self.tape_of(connection).only((connection,), texts)

    def snapshot(self, connection: int, blocks: Iterable[Block]) -> None:
        """Goes to a newcomer."""
        pieces: list[Text | SharedBatch] = []
        for block in blocks:
            framed = self._framed.get(block)
            if framed is not None:
                pieces.append(framed)
            elif sum(map(len, block.texts)) > FRAMED_BYTES_MAX * len(block.texts):
                pieces += block.texts
            else:
                framed = self._framed[block] = Framed(block)
                pieces.append(framed)
        self.tape_of(connection).splice(connection, pieces)

    def tell_all(
        self,
        receivers: Mapping[int, PeerActor],
        leaving: Collection[int],
        keep: Callable[[SharedBatch | None, Mapping[int, Batch | None]], None] | None = None,
    ) -> tuple[int, int, Iterable[Mapping[int, Batch | None]]]:
        """End the round, and send everybody its part, but not those who are leaving what they have
        of their own. `keep`: gets before that what those get who want everything, and who gets
        something else instead.

        Returns what went to many (how many messages to one of them at most, and how many bytes in
        all), and who got something else instead, tape by tape.
        """
        if not self.differ:  # in most rounds
            plain = self.plain
            shared, own = plain.finish()
            if keep is not None:
                keep(shared, own)
            self._tell(shared, plain.present, own, receivers, leaving)
            return (shared.count, shared.size, (own,)) if shared is not None else (0, 0, (own,))
        spools = self.finish()
        if keep is not None:
            keep(*_together(spools))
        for spool in spools:
            self._tell(spool.shared, spool.present, spool.own, receivers, leaving)
        many = [spool.shared for spool in spools if spool.shared is not None]
        count = max((shared.count for shared in many), default=0)
        return count, sum(shared.size for shared in many), [spool.own for spool in spools]

    def _tell(
        self,
        shared: SharedBatch | None,
        present: Set[int],
        own: Mapping[int, Batch | None],
        receivers: Mapping[int, PeerActor],
        leaving: Collection[int],
    ) -> None:
        sent = self._sent
        count = bytes = 0
        if shared is not None:
            those = present - own.keys() if own else present
            for connection in those:
                receivers[connection].tell(shared)
            count, bytes = len(those) * shared.count, len(those) * shared.size
            if sent is not None:
                sent.update(dict.fromkeys(those, shared.count))
        for connection, batch in own.items():
            if batch is not None and connection not in leaving:
                receivers[connection].tell(batch)
                count += batch.count
                bytes += batch.size
        self._traffic.deliver(count, bytes)
        if sent is not None:
            sent.update({c: batch.count for c, batch in own.items() if batch is not None})

    def watch(self) -> None:
        """From here on it is counted what each connection is sent."""
        if self._sent is None:
            self._sent = Counter()

    def unwatch(self) -> None:
        """From here on it is not."""
        self._sent = None

    def sent_to(self, connection: int) -> int:
        """How many messages the connection was sent while somebody watched."""
        return 0 if self._sent is None else self._sent[connection]

    def finish(self) -> list[Spool]:
        """End the round. The plain tape comes first."""
        spools = []
        for wish, tape in tuple(self._tapes.items()):
            shared, own = tape.finish()
            spools.append(Spool(shared, tape.present, own))
            if not tape.present and wish != ALL:
                del self._tapes[wish]
        for connection in self._dismissed:
            self._of.pop(connection, None)
        self._dismissed.clear()
        self.differ = bool(self._of)
        return spools
