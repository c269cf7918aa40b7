"""A mesh that is made up for the console: what its stream would say of it, second by second."""

import json
import random
from typing import Any, Final

KINDS: Final = ("coder", "planner", "reviewer", "tester", "writer", "searcher", "browser", "critic")
HOSTS: Final = ("laptop-ann", "laptop-bob", "build-1", "build-2", "gpu-1", "gpu-2", "edge-fra")
BEGAN_MS: Final = 1_767_225_600_000
NOW_MS: Final = BEGAN_MS + 3 * 3_600_000

STUCK: Final = "reviewer-42"
FLOODING: Final = "browser-102"
SLOW: Final = "writer-76"
_STUCK: Final = "stuck"


class Watched:
    """`peers` agents that work. Unless `is_calm`, one is stuck, one floods the mesh and one reads
    too slowly. The same seed makes the same mesh."""

    def __init__(self, peers: int = 200, *, is_calm: bool = False, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._is_calm = is_calm
        self.at_ms = NOW_MS
        self.version = "0.1.0"
        self.peers: dict[str, dict[str, Any]] = {}
        self.turns: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.totals = {"received": 3_000_000, "refused": 400, "joined": 900, "left": 700}
        self._counts: dict[tuple[str, str | None, str], int] = {}
        self._n = 0
        for number in range(peers):
            kind = KINDS[number % len(KINDS)]
            self._join(f"{kind}-{number}", kind, HOSTS[number % len(HOSTS)])
        ids = list(self.peers)
        for id in self._random.sample(ids, len(ids) // 20):
            self.peers[id] |= {"state": "stale", "heard_ms": self.at_ms - 21_000}
        for number in range(max(3, peers // 16)):
            self._ask(f"open-{number}", began_s=self._random.uniform(0, 25))
        for number in range(30):
            outcome = self._random.choice(["ended"] * 8 + ["failed", "cancelled"])
            self._ask(f"over-{number}", began_s=self._random.uniform(30, 120), outcome=outcome)
        if not is_calm:
            self._ask(_STUCK, began_s=154, to=STUCK, silent_s=146)
            self.peers[SLOW] |= {"queued_messages": 780, "queued_bytes": 1_900_000}
        for number in range(24):
            self._happen(
                "joined" if number % 3 else "left", self._random.choice(ids), 600 - number * 20
            )

    def _join(self, id: str, agent: str, host: str) -> None:
        self.peers[id] = {
            "state": "present",
            "name": None,
            "host": host,
            "agents": [agent, f"{agent}/{host}"],
            "connections": 1,
            "heard_ms": self.at_ms - self._random.randrange(9000),
            "received": self._random.randrange(50_000),
            "sent": self._random.randrange(200_000, 900_000),
            "queued_messages": 0,
            "queued_bytes": 0,
        }

    def _ask(
        self,
        key: str,
        *,
        began_s: float,
        to: str | None = None,
        silent_s: float = 1,
        outcome: str | None = None,
    ) -> None:
        asker, other = self._random.sample(sorted(self.peers), 2)
        self.turns[key] = {
            "id": f"turn of {key}",
            "asker": asker,
            "to": to or other,
            "by": to or other,
            "type": "direct",
            "began_ms": round(self.at_ms - began_s * 1000),
            "last_ms": round(self.at_ms - min(silent_s, began_s) * 1000),
            "chunks": self._random.randrange(40),
            "outcome": outcome,
        }

    def _happen(
        self, what: str, peer: str, ago_s: float, why: str | None = None, count: int | None = None
    ) -> dict[str, Any]:
        self._n += 1
        event = {
            "n": self._n,
            "at_ms": round(self.at_ms - ago_s * 1000),
            "what": what,
            "peer": peer,
            "connection": self._n,
            "why": why or ("silent" if what == "left" else None),
            "count": count,
        }
        self.events.append(event)
        return event

    def _count(self, sender: str, to: str | None, type: str, count: int) -> None:
        key = (sender, to, type)
        self._counts[key] = self._counts.get(key, 0) + count

    def _common(self) -> dict[str, Any]:
        flow = sorted(self._counts.items(), key=lambda item: -item[1])[:200]
        size = {"connections": len(self.peers), "peers": len(self.peers)}
        return {
            "at_ms": self.at_ms,
            "relay": {
                "version": self.version,
                "since_ms": BEGAN_MS,
                "is_draining": False,
                "connections": len(self.peers) + 37,
                "deliveries": 0,
                "held_bytes": 21_400_000,
                "held_bytes_max": 1 << 30,
                "lag_s": 0.0021,
                "meshes": {
                    "default": size,
                    "research": {"connections": 31, "peers": 30},
                    "nightly": {"connections": 6, "peers": 6},
                },
            },
            "totals": dict(self.totals),
            "flow": [[*way, count] for way, count in flow],
            "flow_since_ms": self.at_ms - 60_000,
        }

    def state(self) -> dict[str, Any]:
        """Everything, as the first event has it."""
        return {
            **self._common(),
            "mesh": "default",
            "bounds": {
                "mailbox_messages_max": 1000,
                "mailbox_bytes_max": 4 << 20,
                "messages_per_s": 1000.0,
                "stale_after_s": 15.0,
                "reap_after_s": 30.0,
            },
            "peers": self.peers,
            "turns": self.turns,
            "events": list(self.events),
        }

    def change(self, seconds: float = 1.0) -> dict[str, Any]:
        """So much later: what has changed."""
        self.at_ms += round(seconds * 1000)
        before = len(self.events)
        peers, turns = set(), set()
        for key, turn in self.turns.items():
            if turn["outcome"] is None and key != _STUCK:
                more = self._random.randrange(8)
                turn |= {"chunks": turn["chunks"] + more, "last_ms": self.at_ms - 300}
                self._say(turn["by"], turn["asker"], "stream", more)
                turns.add(key)
                peers |= {turn["by"], turn["asker"]}
        for id in self._random.sample(sorted(self.peers), max(1, len(self.peers) // 4)):
            if self.peers[id]["state"] == "present":
                self.peers[id]["heard_ms"] = self.at_ms - 200
                self._say(id, None, "broadcast", self._random.randrange(3))
                peers.add(id)
        if not self._is_calm:
            self._say(FLOODING, None, "broadcast", round(430 * seconds))
            self.totals["refused"] += round(12 * seconds)
            self._happen("refused", FLOODING, 0, "rate_limited", round(12 * seconds))
            peers.add(FLOODING)
        common = self._common()
        changed = {id: self.peers[id] for id in sorted(peers)}
        told = {
            **common,
            "peers": changed,
            "turns": {key: self.turns[key] for key in sorted(turns)},
        }
        if events := self.events[before:]:
            told["events"] = events
        return told

    def _say(self, sender: str, to: str | None, type: str, count: int) -> None:
        if count == 0:
            return
        self.peers[sender]["received"] += count
        self.totals["received"] += count
        for id in [to] if to is not None else self.peers:
            if id != sender:
                self.peers[id]["sent"] += count
        self._count(sender, to, type, count)


def event(type: str, told: dict[str, Any]) -> str:
    """An event as the stream has it."""
    return f"event: {type}\r\ndata: {json.dumps(told)}\r\n\r\n"
