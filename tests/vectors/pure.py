"""Vectors of functions: agents' ids, the lifecycle table, differences of rosters, session ids."""

import random
from collections.abc import Iterator
from typing import Any

import attrs

from protocol.agents import agent_id
from protocol.limits import MembershipLimits
from protocol.member import lifecycle
from protocol.member.errors import RelayError
from protocol.member.incoming import Nonsense, read_frame
from protocol.member.lifecycle import TABLE, ImpossibleTransition, Membership, Step
from protocol.member.messages import RemotePeer
from protocol.member.reasons import Seen, place_of, reason
from protocol.member.roster import compare
from protocol.session import session_id
from tests.vectors.coding import plain
from tests.vectors.recording import Case

AGENTS: tuple[Any, ...] = (
    *("coder", "", None, 7, True, [], ["coder"], {}),
    {"agentId": "a"},
    {"id": "b"},
    {"name": "c"},
    {"agentId": 5, "id": "x"},
    {"agentId": "", "id": "x"},
    {"agentId": "a", "id": "b", "name": "c"},
    {"agentId": None, "id": None, "name": "c"},
    {"agentId": {"id": "x"}, "name": "c"},
    {"agentId": "", "id": "", "name": ""},
    {"agentId": False, "id": 0, "name": []},
    {"other": "a"},
    {"agentId": "caf\u00e9"},
)


def agents() -> Iterator[Case]:
    """Every way in which an agent may be announced."""
    for agent in AGENTS:
        yield {
            "name": f"the agent {agent!r}",
            "call": "agent_id",
            "arguments": {"agent": agent},
            "returns": agent_id(agent),
        }


def record(membership: Membership) -> dict[str, Any]:
    return {**attrs.asdict(membership), "state": membership.state.value}


def shown(step: Step) -> dict[str, Any]:
    effects = [effect.value for effect in step.effects]
    return {"membership": record(step.membership), "effects": effects}


def membership() -> Iterator[Case]:
    """Every cell of the table, with several records and times; every deadline and its expiry."""
    chance = random.Random(5)
    limits = MembershipLimits()
    for state, event in TABLE:
        for _ in range(4):
            at = float(chance.randrange(5000))
            old = Membership(
                state,
                due=chance.choice([None, at - 1, at + chance.randrange(-50, 3300)]),
                heard=at - chance.randrange(-1, 60),
                doubted=chance.choice([None, at - chance.randrange(8)]),
                attempts=chance.choice([0, 1, 5, 80]),
                refusals=chance.choice([0, 0, 1, 5, 80]),
                joined=at - chance.choice([1, 29, 31, 3000]),
            )
            roll = chance.choice([0.0, 0.25, 0.5, 0.875])
            said_no = chance.random() < 0.5
            happened = {
                **{"name": event.__name__, "at": at, "chance": roll},
                **({"is_refusal": True} if said_no else {}),
            }
            yield {
                "name": f"{event.__name__} while {state.value}",
                "call": "transition",
                "arguments": {"old": record(old), "event": happened},
                **_attempt(
                    lambda old=old, event=event, at=at, roll=roll, no=said_no: lifecycle.transition(
                        old, event(at, roll, is_refusal=no), limits
                    )
                ),
            }
            yield {
                "name": f"the deadline while {state.value}",
                "call": "deadline",
                "arguments": {"membership": record(old)},
                "returns": lifecycle.deadline(old, limits),
            }
            yield {
                "name": f"what is due while {state.value}",
                "call": "expire",
                "arguments": {"membership": record(old), "now": at, "chance": roll},
                **_attempt(
                    lambda old=old, at=at, roll=roll: lifecycle.expire(old, at, roll, limits)
                ),
            }
    for attempts in (0, 1, 5, 6, 7, 64, 5000):
        yield {
            "name": f"the backoff after {attempts} failures",
            "call": "backoff",
            "arguments": {"attempts": attempts, "chance": 0.75, "wait_max_s": 20.0},
            "returns": lifecycle.backoff(attempts, 0.75, 20.0, limits),
        }


def _attempt(step: Any) -> dict[str, Any]:
    try:
        return {"returns": shown(step())}
    except ImpossibleTransition:
        return {"raises": {"error": "ImpossibleTransition"}}


def roster() -> Iterator[Case]:
    """How two views of the roster differ."""
    ann, bob = RemotePeer("ann", ("a",), {"n": 1}), RemotePeer("bob")
    other = RemotePeer("ann", ("a", "b"), {"n": 1})
    for name, seen, here in (
        ("nobody", [], []),
        ("somebody has come", [ann], [ann, bob]),
        ("somebody has gone", [ann, bob], [bob]),
        ("somebody is another", [ann, bob], [other, bob]),
        ("the data is another", [ann], [RemotePeer("ann", ("a",), {"n": 2})]),
        ("all at once", [ann, RemotePeer("eve")], [bob, other]),
        ("nothing", [ann, bob], [ann, bob]),
    ):
        change = compare(_by_id(seen), _by_id(here))
        yield {
            "name": name,
            "call": "compare",
            "arguments": {"seen": plain(_by_id(seen)), "here": plain(_by_id(here))},
            "returns": {
                side: plain(getattr(change, side)) for side in ("joined", "updated", "left")
            },
        }


FRAMES = (
    *("", "x", "7", "null", "[1]", "{}", '{"type":1}', "[[]]", "[]", " [ ] ", '{"type":"a"} x'),
    *('{"type":"a"}', ' {"type":"a","type":"b"} ', '[{"type":"a"},{"type":"b","data":[[],{}]}]'),
    *('{"type":"a","data":NaN}', '{"type":"a","data":-Infinity}', '{"type":"a","data":01}'),
    '{"type":"a","data":"\\ud83d"}',
    '[{"type":"a","data":"\\ud83d"} ,\n {"type":"b","data":"caf\u00e9 \U0001f916"}]',
    '{"type":"a","data":"\\\\ud83d"}',
    '{"type":"a","data":"a \\" [ \\\\"}',
    '{"type":"a","data":"%s"}' % ("1,2," * 1000),
    '{"type":"a","data":"%s"}' % ("go on, he said. " * 200),
    '{"type":"a","data":[%s1]}' % ("1," * 100),
    '{"type":"a","data":[%s1]}' % ("1," * 5000),
    f'{{"type":"a","data":"{"[{:," * 50},caf\u00e9","more":[{"1," * 50}1]}}',
    *(f'{{"type":"a","data":{"[" * depth}{"]" * depth}}}' for depth in (255, 256)),
    *(f' [{{"type":"a","data":{"[" * depth}{"]" * depth}}}]' for depth in (255, 256)),
    '{"type":"a","data":"%s"}' % ("[" * 300),
    '{"type":"a","data":[%s[]]}' % ("[]," * 300),
    f' [{{"type":"a"}} , {{"type":"b","data":{"[" * 5000}{"]" * 5000}}} , {{"type":"c"}}]',
    '[{"type":"a"}, {"type":"b","data":%s}' % ("[" * 300),
    *("[" * 300, '"' + "[" * 300, '"\\"' + "[" * 300, '""' + "[" * 300),
    '{"type":"a","__proto__":{"type":"b"},"data":{"constructor":1,"":2}}',
    '{"type":"\\u0061\\u0000"}',
)
"""What a relay, or somebody in its place, may send."""


def incoming() -> Iterator[Case]:
    """What is read of a frame, and what it costs."""
    limits = MembershipLimits()
    for number, frame in enumerate(FRAMES):
        yield {
            "name": f"frame {number}: {frame[:40]}",
            "call": "read_frame",
            "arguments": {"frame": frame},
            "returns": read(frame, limits),
        }


def read(frame: str, limits: MembershipLimits) -> Any:
    """What `read_frame` says, as a file tells it."""
    try:
        return [attrs.asdict(one) for one in read_frame(frame, limits)]
    except Nonsense as nonsense:
        return {"error": str(nonsense)}


def _by_id(peers: list[RemotePeer]) -> dict[str, RemotePeer]:
    return {peer.id: peer for peer in peers}


MESHES = (
    ("my mesh", ""),
    ("my mesh", "hunter2"),
    ("a", ""),
    ("default", ""),
    ("caf\u00e9", ""),
    ("cafe\u0301", ""),
    ("\u5de5\u4f5c\u5ba4", "\u79d8\u5bc6"),
    ("\U0001f916 team / 1?&=#%", "p\u00e5ss w\u00f6rd"),
    ("x" * 1000, ""),
    ("my mesh", " "),
    (" my mesh", ""),
)


def session() -> Iterator[Case]:
    """The session ids of meshes."""
    for mesh, secret in MESHES:
        yield {
            "name": f"the mesh {mesh!r} with the secret {secret!r}",
            "call": "session_id",
            "arguments": {"mesh": mesh, "secret": secret},
            "returns": session_id(mesh, secret),
        }


HOSTS = (
    *("localhost", "127.0.0.1", "::1", "[::1]", "a.localhost", "localhost.", "relay.example"),
    *("bedrock-agentcore.eu-west-1.amazonaws.com", "x.amazonaws.com.cn", "evilamazonaws.com"),
)
STATUSES = (
    None,
    200,
    302,
    400,
    401,
    403,
    404,
    408,
    409,
    421,
    424,
    426,
    429,
    431,
    500,
    502,
    503,
    504,
)


def reasons() -> Iterator[Case]:
    """Where hosts are, and why a connection could not be made."""
    for host in HOSTS:
        yield {
            "name": f"the place of {host}",
            "call": "place_of",
            "arguments": {"host": host},
            "returns": place_of(host).value,
        }
    chance = random.Random(7)
    for status in STATUSES:
        for host in ("localhost", "relay.example", HOSTS[7]):
            for _ in range(3):
                seen: dict[str, Any] = {
                    "host": host,
                    "port": chance.choice([80, 443, 8080]),
                    "path": chance.choice(["/ws", "/", "/ws/", "/other"]),
                    "is_secure": chance.random() < 0.7,
                    "has_token": chance.random() < 0.5,
                    "status": status,
                    "is_there": chance.choice([True, True, False, None]),
                    "origin": chance.choice(["null", "https://agi.diy", "http://localhost:8000"]),
                    "is_forbidden": chance.random() < 0.1,
                    "permission": chance.choice([None, None, "granted", "prompt", "denied"]),
                }
                error = reason(Seen(**seen))
                yield {
                    "name": f"{host}, status {status}",
                    "call": "reason",
                    "arguments": {"seen": seen},
                    "returns": told(error),
                }


def told(error: RelayError) -> dict[str, Any]:
    """An error, and whether another attempt may help."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "is_transient": error.is_transient,
    }
