"""A small relay of the base protocol, correct by default, with the mistakes that such servers make.

It shares no code with the relay of this project. Each `Mistake` is one that was met in real servers
of this kind; test_conformance.py beside it shows that the conformance kit names every one of them.
"""

import asyncio
import contextlib
import enum
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed


class Mistake(enum.Enum):
    """What the relay gets wrong."""

    CLOSING_ONE_TAB_SAYS_OFFLINE = "closing one of two tabs announces offline"
    DIRECT_TO_AGENT_IS_DROPPED = "a direct to an agent is dropped silently"
    REAP_SAYS_OFFLINE_TWICE = "a reap announces offline twice"
    FORGED_FROM_IS_DELIVERED = "a forged `from` is delivered"
    MALFORMED_CLOSES = "malformed input closes the socket"
    JOIN_DISCONNECTS_THE_SENDER = "a join during a broadcast disconnects the sender"
    SECOND_ID_LEAVES_A_GHOST = "a second id on one connection leaves a ghost"
    STALLED_READER_BLOCKS_ALL = "one stalled reader blocks all"
    HEARTBEAT_IS_FORWARDED = "a heartbeat is forwarded"
    DIRECT_GOES_TO_ALL = "a direct is delivered to all"
    DIRECT_IS_OVERTAKEN = "order is broken between direct and broadcast"
    NO_PRESENCE_BACK = "a presence does not come back to its sender"
    NO_ROSTER = "a presence reaches only those who are there already"
    ECHOES = "what a peer says to all others comes back to it"
    ONLY_BROADCASTS = "every text goes to all others, whatever it is"
    ANSWERS_NOTHING = "nobody ever receives anything"
    CLOSES_ON_CAPABILITIES = "an unknown question closes the connection"


class Refused(Exception):
    """A message is answered with an error, which these words explain."""


class SmallRelay:
    """Everything in one dict per question. Decides each message at once, without waiting."""

    def __init__(self, mistake: Mistake | None = None, reap_after_s: float = 30.0) -> None:
        self.mistake = mistake
        self.reap_after_s = reap_after_s
        self.ids: dict[ServerConnection, str] = {}  # of those that announced themselves
        self.presences: dict[str, str] = {}
        self.agents: dict[str, set[str]] = {}
        self.heard_at: dict[ServerConnection, float] = {}
        self.sending = asyncio.Lock()

    async def handle(self, socket: ServerConnection) -> None:
        """One connection, from its opening to its end, whatever a mistake makes of it."""
        try:
            async for text in socket:
                self.heard_at[socket] = time.monotonic()
                if self.gets(Mistake.ANSWERS_NOTHING):
                    continue
                if self.gets(Mistake.ONLY_BROADCASTS):
                    self.ids.setdefault(socket, "")
                    broadcast([other for other in self.ids if other is not socket], text)
                    continue
                try:
                    await self.received(socket, text)
                except Refused as refused:
                    error = {"type": "error", "from": "relay", "data": {"error": str(refused)}}
                    broadcast([socket], json.dumps(error))
        except ConnectionClosed:
            pass
        except (RuntimeError, ValueError):  # what two of the mistakes raise
            await socket.close(1011)
        finally:
            self.ended(socket)
            self.heard_at.pop(socket, None)

    async def received(self, socket: ServerConnection, text: str | bytes) -> None:
        message = self.read(text)
        type, sender, id = message["type"], message.get("from"), self.ids.get(socket)
        if type == "capabilities" and self.gets(Mistake.CLOSES_ON_CAPABILITIES):
            raise ValueError(type)
        if type == "presence":
            self.announced(socket, message, str(text))
        elif id is None:
            raise Refused("announce yourself first")
        elif (
            sender != id
            and sender in self.presences
            and not self.gets(Mistake.FORGED_FROM_IS_DELIVERED)
        ):
            raise Refused("that is somebody else's id")
        elif type == "direct":
            self.direct(id, message["to"], str(text))
        elif type != "heartbeat" or self.gets(Mistake.HEARTBEAT_IS_FORWARDED):
            await self.fan_out(id, str(text))

    def gets(self, mistake: Mistake) -> bool:
        """Does this relay make that mistake?"""
        return self.mistake is mistake

    def read(self, text: str | bytes) -> dict[str, Any]:
        """The message, if it is one. Raises Refused."""
        try:
            if isinstance(text, bytes):
                raise ValueError("binary")
            message = json.loads(text, parse_constant=_not_json)
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise ValueError("not a message")
            if not all(isinstance(message.get(key, ""), str | None) for key in ("from", "to")):
                raise ValueError("`from` and `to` are strings")
            if message["type"] == "direct" and not message.get("to"):
                raise ValueError("a direct needs `to`")
            data = message.get("data") or {}
            if message["type"] == "presence" and not (
                message.get("from")
                and isinstance(message.get("data", {}), dict | None)
                and isinstance(data.get("agents", []), list)
            ):
                raise ValueError("a presence needs `from`, and a list as `data.agents`")
        except (ValueError, RecursionError) as error:
            if self.gets(Mistake.MALFORMED_CLOSES):
                raise
            raise Refused(str(error)) from error
        return message

    def announced(self, socket: ServerConnection, message: dict[str, Any], text: str) -> None:
        id = message["from"]
        old = self.ids.get(socket, id)
        if old != id and not self.gets(Mistake.SECOND_ID_LEAVES_A_GHOST):
            raise Refused("a connection keeps its id")
        others = [other for peer, other in self.presences.items() if peer != id]
        is_new = socket not in self.ids
        self.ids[socket] = id
        self.presences[id] = text
        agents = (message.get("data") or {}).get("agents", [])
        self.agents[id] = {str(_agent_id(agent)) for agent in agents}
        hears_itself = self.mistake not in (Mistake.NO_PRESENCE_BACK, Mistake.NO_ROSTER)
        broadcast([other for other in self.ids if hears_itself or other is not socket], text)
        for other in others if is_new and not self.gets(Mistake.NO_ROSTER) else ():
            broadcast([socket], other)

    def direct(self, sender: str, to: str, text: str) -> None:
        target = self.find(to)
        sockets = [socket for socket, id in self.ids.items() if id == target]
        if self.gets(Mistake.DIRECT_GOES_TO_ALL):
            sockets = [socket for socket, id in self.ids.items() if id != sender]
        if self.gets(Mistake.DIRECT_IS_OVERTAKEN):
            asyncio.get_running_loop().call_later(0.02, broadcast, sockets, text)
        else:
            broadcast(sockets, text)

    def find(self, to: str) -> str | None:
        """The peer that a direct to a peer or an agent is for. Raises Refused."""
        if to in self.presences:
            return to
        hosts = [peer for peer, agents in self.agents.items() if to in agents]
        if hosts and self.gets(Mistake.DIRECT_TO_AGENT_IS_DROPPED):
            return None
        if not hosts:
            raise Refused("nobody of that name is here")
        return hosts[0]

    async def fan_out(self, sender: str, text: str) -> None:
        """To all but the sender. Two mistakes wait here, which a relay should never do."""
        if self.gets(Mistake.JOIN_DISCONNECTS_THE_SENDER):
            async with self.sending:
                for socket, id in self.ids.items():  # raises if somebody joins meanwhile
                    if id != sender:
                        broadcast([socket], text)
                        await asyncio.sleep(0)
        elif self.gets(Mistake.STALLED_READER_BLOCKS_ALL):
            for socket, id in tuple(self.ids.items()):
                if id != sender:
                    with contextlib.suppress(ConnectionClosed):
                        await socket.send(text)
        else:
            echoes = self.gets(Mistake.ECHOES)
            broadcast([socket for socket, id in self.ids.items() if echoes or id != sender], text)

    def ended(self, socket: ServerConnection) -> None:
        """The connection is over. Calling it again does nothing."""
        id = self.ids.pop(socket, None)
        if id == "":
            return
        is_last = id not in self.ids.values()
        if id is not None and (is_last or self.gets(Mistake.CLOSING_ONE_TAB_SAYS_OFFLINE)):
            self.presences.pop(id, None)
            self.agents.pop(id, None)
            self.say_offline(id)

    def say_offline(self, id: str) -> None:
        data = {"status": "offline", "agents": []}
        broadcast(self.ids, json.dumps({"type": "presence", "from": id, "data": data}))

    async def reap(self) -> None:
        """Look for silent peers, for ever."""
        step_s = self.reap_after_s / 20
        while True:
            since = time.monotonic()
            await asyncio.sleep(step_s)
            late_s = time.monotonic() - since - step_s
            if late_s > step_s:  # this process was held up, and nobody was silent
                self.heard_at = {socket: at + late_s for socket, at in self.heard_at.items()}
            for socket, id in tuple(self.ids.items()):
                heard_at = self.heard_at.get(socket, math.inf)
                is_wordless = id == ""  # a relay that only broadcasts knows nobody
                if time.monotonic() - heard_at > self.reap_after_s and not is_wordless:
                    if self.gets(Mistake.REAP_SAYS_OFFLINE_TWICE):
                        self.say_offline(id)
                    self.ended(socket)
                    socket.transport.abort()


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _agent_id(agent: object) -> object:
    if isinstance(agent, dict):
        return next((agent[key] for key in ("agentId", "id", "name") if agent.get(key)), None)
    return agent


@contextlib.asynccontextmanager
async def small_relay(
    mistake: Mistake | None = None, reap_after_s: float = 30.0, **options: Any
) -> AsyncIterator[str]:
    """The relay on a loopback port, in this event loop. The URL."""
    relay = SmallRelay(mistake, reap_after_s)
    options = {"compression": None, "close_timeout": 0.2, **options}
    async with serve(relay.handle, "127.0.0.1", 0, **options) as server:
        reaper = asyncio.create_task(relay.reap())
        (listener, *_) = server.sockets
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        finally:
            reaper.cancel()
            await asyncio.gather(reaper, return_exceptions=True)
