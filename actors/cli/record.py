"""`agi-mesh record` and `agi-mesh replay`: what an observer hears, with times, and saying it again.

A recording has a line of JSON for each message: `at` in seconds since the first, and `message` as
it came. It has what goes to everyone, and so no direct messages of others.
"""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import IO, Any

import anyio
import attrs
import click

from actors.cli import shown
from actors.cli.hearing import heard
from actors.cli.place import Place, options
from actors.cli.running import CannotDo, run
from actors.client.peer import Peer
from protocol.member.errors import RelayError
from protocol.member.messages import OWN_TYPES, Message, is_offline


@click.command()
@options
@click.argument("file", default="-", type=click.File("w", encoding="ascii"))
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End after so long.")
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
def record(*, place: Place, file: IO[str], seconds: float | None, count: int | None) -> None:
    """Write what goes to everyone to FILE (or stdout), until you press Ctrl-C."""

    async def work() -> None:
        written = 0
        with anyio.move_on_after(seconds):
            async with place.join(program="agi-mesh record") as observer:
                shown.note(f"records at {place.shown}; Ctrl-C ends it")
                began = anyio.current_time()
                async for message in heard(observer):
                    if isinstance(message, RelayError):
                        raise CannotDo(f"the recording would have a hole: {message}")
                    if message.origin == observer.id:
                        continue
                    at = round(anyio.current_time() - began, 4)
                    line = json.dumps({"at": at, "message": message.fields}, separators=(",", ":"))
                    file.write(f"{line}\n")
                    file.flush()
                    written += 1
                    if written == count:
                        return

    run(work)


@attrs.frozen
class Line:
    """One line of a recording."""

    at: float
    message: Message


def read(file: IO[str]) -> Iterator[Line]:
    """The lines of a recording. Raises CannotDo with the number of one that is none."""
    for number, text in enumerate(file, start=1):
        try:
            line = json.loads(text)
            at, fields = float(line["at"]), line["message"]
            if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
                raise ValueError("a message has a type")
        except (ValueError, TypeError, KeyError) as error:
            raise CannotDo(f"line {number} is no line of a recording: {error}") from None
        yield Line(at, Message(fields))


@click.command()
@options
@click.argument("file", default="-", type=click.File("r", encoding="utf-8"))
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="2 is twice as fast.",
)
def replay(*, place: Place, file: IO[str], speed: float) -> None:
    """Say what FILE has recorded, in a mesh.

    Each peer of the recording is a peer there, with the same id and agents, from the moment when it
    came until it left, or until the end. Times are kept, divided by --speed.
    """
    lines = list(read(file))

    async def work() -> None:
        async with Cast(place) as cast:
            began = anyio.current_time()
            first = lines[0].at if lines else 0.0
            for count, line in enumerate(lines, start=1):
                await anyio.sleep_until(began + (line.at - first) / speed)
                await cast.play(line.message)
                if count % 100 == 0:
                    shown.progress(f"{count} of {len(lines)}")
        shown.note(f"{len(lines)} messages of {cast.count} peers were said at {place.shown}")

    run(work)


class Cast:
    """The peers of a recording, as peers of a mesh."""

    def __init__(self, place: Place) -> None:
        self.count = 0
        self._place = place
        self._peers: dict[str, tuple[Peer, AsyncExitStack]] = {}

    async def __aenter__(self) -> "Cast":
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, stack in self._peers.values():
            await stack.aclose()

    async def play(self, message: Message) -> None:
        """Do again what has led to this message."""
        origin = message.origin
        if origin is None or message.is_relays:
            return
        data = message.data if isinstance(message.data, dict) else {}
        if message.type == "presence":
            if is_offline(message):
                await self._leave(origin)
            else:
                listed = data.get("agents")
                await self._be(origin, listed if isinstance(listed, list) else [])
        elif message.type not in OWN_TYPES:
            fields: dict[str, Any] = {
                name: value
                for name, value in message.fields.items()
                if name not in ("type", "from", "instanceId", "timestamp")
            }
            speaker = await self._be(origin)
            agent = message.sender if message.sender != origin else None
            await speaker.send(message.type, fields.pop("data", None), agent=agent, **fields)

    async def _be(self, id: str, agents: list[Any] | None = None) -> Peer:
        if id in self._peers:
            known = self._peers[id][0]
            if agents is not None:
                await known.announce(agents)
            return known
        stack = AsyncExitStack()
        joined: Peer = self._place.join(
            id=id, agents=agents, subscribe=False, program="agi-mesh replay"
        )
        await stack.enter_async_context(joined)
        self._peers[id] = joined, stack
        self.count += 1
        return joined

    async def _leave(self, id: str) -> None:
        if id in self._peers:
            await self._peers.pop(id)[1].aclose()
