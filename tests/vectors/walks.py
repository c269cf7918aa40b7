"""Random vectors of a whole peer: seeded walks through everything that can happen to it, with the
relay's own mesh at the other end."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import NoCredentials, NotARelay, Unreachable
from protocol.member.outgoing import Frame
from tests.vectors.recording import Case, Recorded
from tests.worlds.member import MemberWorld
from tests.worlds.mesh import presence, text

SEEDS = range(16)
STEPS_OF_EACH = 110
LIMITS: dict[str, Any] = {
    **{"renew_after_s": 60.0, "queue_messages_max": 6},
    **{"turns_max": 2, "serve_within_s": 15.0},
}
EDGE: dict[str, Any] = {"frames_per_s": 20.0, "frame_bytes_max": 1024}

KINDS = {
    **{"settle": 10, "some": 30, "wait": 12, "lose": 3, "fail": 3, "nudge": 2},
    **{"sleep": 1, "suspend": 1},
    **{"send": 8, "pump": 10, "announce": 4, "ask": 8, "abandon": 2},
    **{"serve": 3, "stop": 2, "stream": 4, "finish": 4, "failure": 2},
    **{
        "bob": 6,
        "bob asks": 10,
        "bob cancels": 3,
        "bob answers": 10,
        "carol": 3,
        "carol goes": 3,
        "rename": 2,
    },
}
"""What may happen next, and how often."""


class Walk:
    """One walk. `bob` is always here; `carol` comes and goes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        behind_edge = seed % 3 == 0
        setup: dict[str, Any] = {"agents": ["coder"], "limits": dict(LIMITS)}
        if seed % 4 == 1:
            setup |= {"overfill": 10, "splits": False}
        if seed % 5 == 2:
            setup["waits"] = False
        if seed % 2:
            setup["owner"] = "a secret of the walk"
        self.member = Recorded(f"a random walk, seed {seed}", {"id": "ann", **setup})
        self.member.skips_idle = True
        relay = Limits(messages_per_s=50.0, messages_burst=20, agents_max=2, **EDGE)
        limits = MembershipLimits(**LIMITS)
        self.world = MemberWorld(limits, relay, behind_edge=behind_edge, member=self.member)
        self.mesh = self.world.world
        self.bob = self.mesh.join("bob", "helper", "twin")
        self.carols: list[int] = []
        self.turns: list[str] = []
        self.services: list[int] = []
        self.commands: list[str] = []
        self.count = 0

    def case(self) -> Case:
        self.world.begin()
        kinds = self.dice.choices(list(KINDS), weights=list(KINDS.values()), k=STEPS_OF_EACH)
        self.world.settle()
        for kind in kinds:
            self.member.roll = self.world.chance = self.dice.choice([0.0, 0.25, 0.5])
            self.step(kind)
        return self.member.case

    def step(self, kind: str) -> None:
        self.count += 1
        world, mesh, dice, now = self.world, self.mesh, self.dice, self.world.now
        live = world.live()
        match kind:
            case "settle":
                world.settle()
            case "some":
                steps: list[Callable[[], object]] = [world.open, world.pump]
                for connection in live:
                    steps += [partial(world.rise, connection), partial(world.fall, connection)]
                for _ in range(3):
                    dice.choice(steps)()
            case "wait":
                mesh.say(self.bob, text("heartbeat"))
                world.wait(dice.choice([0.125, 1.0, 5.0, 10.0]))
                world.settle()
            case "sleep":
                mesh.wait(dice.choice([20.0, 50.0]))
                self.member.expire(world.now)
                world.obey()
            case "lose" if live and live[0] not in world.opening:
                world.lose(live[0])
            case "fail" if world.opening:
                connection = world.opening.popleft()
                if not world.pipes[connection].is_closed:
                    world.pipes[connection].is_closed = True
                    kinds = (Unreachable, Unreachable, NoCredentials, NotARelay)
                    self.member.failed(connection, dice.choice(kinds)("no"), now)
            case "nudge":
                self.member.nudge(now)
            case "suspend":
                self.member.suspend(now)
                world.obey()
                mesh.wait(dice.choice([1.0, 20.0]))
                if dice.random() < 0.5:
                    self._try("send", {"type": "broadcast", "data": self.count})
                self.member.nudge(world.now)
            case "send":
                self._try("send", {"type": "broadcast", "data": self.count})
            case "pump":
                for connection in live:
                    frame = self.member.next_frame(connection, now)
                    if isinstance(frame, Frame):
                        world.pipes[connection].up.append(frame.text.encode())
            case "announce":
                agents = dice.sample(["coder", "tester", "poet"], dice.randrange(4))
                self._try("announce", agents, dice.choice([None, {"n": self.count}]))
            case "ask":
                agent = dice.choice(["helper", "bob", "twin", "nobody", "coder", "ann"])
                peer = dice.choice([None, None, "bob"])
                timeout_s = dice.choice([2.0, 60.0, None])
                how = {"peer": peer, "any": peer is None and dice.random() < 0.4}
                turn = self._try("ask", agent, self.count, timeout_s=timeout_s, **how)
                self.turns += [turn] if turn else []
            case "abandon" if self.turns:
                self.member.abandon(dice.choice(self.turns), now)
            case "serve":
                number = self._try("serve", dice.choice([None, ["coder"], ["poet", "ann"]]))
                self.services += [number] if number else []
            case "stop" if self.services:
                number = self.services.pop(dice.randrange(len(self.services)))
                self.member.stop_serving(number, now, cancels=dice.random() < 0.5)
            case "stream":
                self._try("stream", dice.randrange(1, 8), f"chunk {self.count}")
            case "finish":
                self._try("finish", dice.randrange(1, 8), self.count)
            case "failure":
                self._try("fail", dice.randrange(1, 8), "it failed")
            case "bob":
                mesh.say(self.bob, text("broadcast", sender="bob", data=self.count))
            case "bob asks":
                to = dice.choice(["ann", "coder", "tester", "poet"])
                data = {"command": self.count}
                target = {"to": to, "targetInstanceId": "ann", "turnId": f"c-{self.count}"}
                target |= dice.choice([{}, {"answers": "direct"}])
                self.commands.append(target["turnId"])
                mesh.say(self.bob, text("direct", sender="bob", data=data, **target))
            case "bob cancels" if self.commands:
                turn = dice.choice(self.commands[-3:])
                mesh.say(self.bob, text("cancel", sender="bob", to="ann", turnId=turn))
            case "bob answers" if self.turns:
                type = dice.choice(["ack", "stream", "stream", "turn_end", "error"])
                answer = {"chunk": "c", "result": self.count, "error": "no"}
                answer |= dice.choice([{}, {}, {"chunkNum": dice.randrange(3)}])
                turn = dice.choice(self.turns[-3:])
                fields = {"to": "ann", "turnId": turn, "data": answer}
                if dice.random() < 0.5:
                    fields |= {"answer": type, "targetInstanceId": "ann"}
                    type = "direct"
                mesh.say(self.bob, text(type, sender="bob", **fields))
            case "carol" if not self.carols:
                self.carols.append(mesh.join("carol", "twin"))
            case "carol goes" if self.carols:
                mesh.end(self.carols.pop())
            case "rename":
                mesh.say(self.bob, presence("bob", *dice.sample(["helper", "twin", "x"], 2)))
        world.obey()

    def _try(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.member, name)(*args, now=self.world.now, **kwargs)
        except Exception:  # it stands in the step
            return None


def member() -> Iterator[Case]:
    """All walks."""
    for seed in SEEDS:
        yield Walk(seed).case()
