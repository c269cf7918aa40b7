"""Plain sockets for benchmarks of many peers: they note what comes, and look at nothing yet."""

import asyncio
import socket
import struct
import time
from collections.abc import Iterator

from tests.attackers.wire import opening


def frames_of(read: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The opcode and the payload of all complete frames, and where each ends."""
    at = 0
    while at + 2 <= len(read):
        length, begin = read[at + 1], at + 2
        if length > 125:
            begin += 2 if length == 126 else 8
            length = int.from_bytes(read[at + 2 : begin], "big")
        if begin + length > len(read):
            return
        yield read[at] & 15, read[begin : begin + length], begin + length
        at = begin + length


class Socket(asyncio.Protocol):
    """One socket. It keeps what it reads, with the times. `says`: once it is open."""

    def __init__(self, says: list[bytes]) -> None:
        self._says = says
        self.reads: list[tuple[float, bytes]] = []
        self.head = b""
        self.has_heard = False  # what somebody says
        self.is_open = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(opening())

    def data_received(self, data: bytes) -> None:
        if not self.is_open.is_set():
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            self.head, data = self.head.split(b"\r\n\r\n", 1)
            self.is_open.set()
            self.transport.writelines(self._says)
        self.reads.append((time.monotonic(), data))
        self.has_heard = self.has_heard or b'"n":' in data

    def messages(self) -> Iterator[tuple[float, bytes]]:
        """All complete messages, and when each was there."""
        read = b"".join(data for _, data in self.reads)
        ends, end = [], 0
        for at, data in self.reads:
            end += len(data)
            ends.append((end, at))
        times = iter(ends)
        until, at = next(times, (0, 0.0))
        for opcode, payload, end in frames_of(read):
            while end > until:
                until, at = next(times)
            if opcode == 1:
                yield at, payload

    def reset(self) -> None:
        """Cut it, as a network that is gone: nothing of it is sent any more."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


async def connected(port: int, says: list[bytes]) -> Socket:
    """A socket that is open. If the relay does not take it, another one."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, made = await loop.create_connection(lambda: Socket(says), "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        await made.is_open.wait()
        return made
