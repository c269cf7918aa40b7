"""A recording of a real mesh (`agi-mesh record`) as events of a simulation.

A recording has what one observer has heard. So it shows who came and left and what was said, and
not heartbeats or what was refused. Here each peer of it opens a connection when it is first heard,
says the same at the same time, and gives signs of life until it leaves. What a relay makes of that
is then compared with the model, for every peer.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from protocol.verification.simulation.events import Close, Event, Open, Send
from protocol.verification.simulation.peers import GRAIN_S, HEARTBEAT_S

RELAY: Final = "relay"


class _Cast:
    """The peers of a recording, by id, and what has become of them so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._connections: dict[str, int] = {}
        self._opened = 0
        self._beaten_at = 0.0

    def beat(self, at: float) -> None:
        """Signs of life until this time."""
        while self._beaten_at + HEARTBEAT_S <= at:
            self._beaten_at += HEARTBEAT_S
            for id, c in self._connections.items():
                self._say(self._beaten_at, c, {"type": "heartbeat", "from": id})

    def play(self, at: float, fields: dict[str, Any]) -> None:
        """What has led to this message."""
        sender, instance = fields.get("from"), fields.get("instanceId")
        id = instance if isinstance(instance, str) and instance else sender
        if not isinstance(id, str) or id == RELAY:
            return
        data = fields.get("data")
        is_presence = fields["type"] == "presence"
        if is_presence and isinstance(data, dict) and data.get("status") == "offline":
            if id in self._connections:
                self.events.append(Close(at, self._connections.pop(id)))
            return
        if id not in self._connections:
            self._opened += 1
            self._connections[id] = self._opened
            self.events.append(Open(at, self._opened))
            if not is_presence:
                self._say(at, self._opened, {"type": "presence", "from": id})
        self._say(at, self._connections[id], fields)

    def _say(self, at: float, c: int, fields: dict[str, Any]) -> None:
        self.events.append(Send(at, c, (json.dumps(fields).encode(),)))


def is_recording(lines: Iterable[str]) -> bool:
    """These are lines of a recording, and not events as a simulation prints them."""
    return next((line.lstrip().startswith("{") for line in lines if line.strip()), False)


def events_of(lines: Iterable[str]) -> list[Event]:
    """The events of a recording. Raises ValueError.

    >>> for event in events_of(['{"at": 0.3, "message": {"type": "ack", "from": "ann"}}']):
    ...     print(event)
          0.25 s  open          1
          0.25 s  send          1  (b'{"type": "presence", "from": "ann"}',)
          0.25 s  send          1  (b'{"type": "ack", "from": "ann"}',)
    """
    cast, before = _Cast(), 0.0
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            at, fields = float(line["at"]), line["message"]
            if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
                raise ValueError("a message has a type")
            at = max(before, int(at / GRAIN_S) * GRAIN_S)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"line {number} is no line of a recording: {error}") from None
        cast.beat(at)
        cast.play(at, fields)
        before = at
    return cast.events
