"""What a round costs the relay without its sockets: deciding, tapes, and one call for each receiver.

    python -m benchmarks.core                                 one sender, a hundred receivers
    python -m benchmarks.core --receivers 10 --messages 1
    python -m benchmarks.core --types 2                       messages of two types in turn
    python -m benchmarks.core --pairs 50                      each of 50 peers says a direct to its partner
    python -m benchmarks.core --resume                        the same with peers that may come back

It prints the least time of many repetitions: the least says most on a machine that does other
things too. With `--rounds N` it makes just so many rounds, and measures nothing, for somebody who
counts instructions, which do not depend on the machine's mood at all:

    valgrind --tool=callgrind python -m benchmarks.core --rounds 200
    valgrind --tool=callgrind python -m benchmarks.core --rounds 1200

The difference of the two sums, divided by 1000, is a round.
"""  # noqa: E501

import argparse
import itertools
import json
import sys
import timeit
from collections.abc import Callable

from actors.clock import SystemClock
from actors.frames import Batch
from actors.relay.peer import PeerActor
from actors.relay.supervisor import Supervisor
from actors.transports.transport import Port
from protocol.envelope import Inbound
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh

TYPES = ("stream", "ack", "turn_end")
SIZE = 180
"""The bytes of a message."""
LIMITS = Limits(messages_per_s=1e7, messages_burst=10**7)


class Sink:
    """A transport whose socket takes everything at once."""

    writes_frames = True

    async def run(self, port: Port) -> None:
        """Nothing is read: what is said is given to the actor."""

    def send(self, batch: Batch) -> bool:
        """Make the frames, as a socket would have them."""
        return batch.wire is not None or bool(batch.buffers)

    def close(self, code: int, reason: str) -> None:
        """Nothing is closed here, nor does anything else happen that follows."""

    def hold_little(self) -> None: ...
    def abort(self) -> None: ...
    def charge(self, bytes: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def message(type: str, sender: int, to: int | None = None) -> bytes:
    """A message of `SIZE` bytes."""
    fields = {"type": type, "from": f"p{sender:06d}"} | ({} if to is None else {"to": f"p{to:06d}"})
    data = {"chunk": "x" * (SIZE - len(json.dumps({**fields, "data": {"chunk": ""}})))}
    return json.dumps({**fields, "data": data}).encode()


class Mesh:
    """A mesh of so many peers. `resume`: they may come back."""

    def __init__(self, peers: int, *, resume: bool) -> None:
        tokens = itertools.count()
        mesh = LocalMesh(LIMITS, new_token=lambda: f"token {next(tokens)}")
        self.supervisor = Supervisor("benchmark", LIMITS, SystemClock(), mesh=mesh)
        self.actors: list[PeerActor] = []
        for number in range(peers):
            actor = self.supervisor.open(Sink())
            self.actors.append(actor)
            if resume:
                actor.received([b'{"type":"capabilities","data":{"resume":{"seconds":20}}}'])
            actor.received([b'{"type":"presence","from":"p%06d","data":{"agents":[]}}' % number])
        self.supervisor.round()

    def fan(self, messages: int, types: int) -> Callable[[], None]:
        """A round in which the first peer says so many messages to all others, of so many types in
        turn."""
        texts: list[Inbound] = [message(TYPES[number % types], 0) for number in range(messages)]
        sender, supervisor = self.actors[0], self.supervisor

        def one_round() -> None:
            sender.received(texts.copy())
            supervisor.round()

        return one_round

    def pairs(self) -> Callable[[], None]:
        """A round in which every other peer says a direct to the next one."""
        said = [
            (actor, message("direct", number, number + 1))
            for number, actor in enumerate(self.actors)
            if number % 2 == 0
        ]
        supervisor = self.supervisor

        def one_round() -> None:
            for actor, text in said:
                actor.received([text])
            supervisor.round()

        return one_round


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--receivers", type=int, default=100, help="how many get each message")
    parser.add_argument("--messages", type=int, default=32, help="messages in a round")
    parser.add_argument("--types", type=int, default=1, choices=(1, 2, 3), help="of so many types")
    parser.add_argument("--pairs", type=int, help="instead: so many directs in a round")
    parser.add_argument("--resume", action="store_true", help="all peers may come back")
    parser.add_argument("--rounds", type=int, help="make so many rounds, and measure nothing")
    given = parser.parse_args()
    peers = given.receivers + 1 if given.pairs is None else 2 * given.pairs
    mesh = Mesh(peers, resume=given.resume)
    one_round = mesh.fan(given.messages, given.types) if given.pairs is None else mesh.pairs()
    if given.rounds is not None:
        for _ in range(given.rounds):
            one_round()
        return
    for _ in range(2000):  # until as much is kept as may be kept
        one_round()
    took_us = min(timeit.repeat(one_round, number=100, repeat=50)) / 100 * 1e6
    count = given.messages if given.pairs is None else given.pairs
    each = f"{took_us / count:.2f} for each message that was said"
    sys.stdout.write(f"{took_us:.1f} us for a round, {each}\n")


if __name__ == "__main__":
    main()
