"""A `Member` that writes down everything that happens to it, and one that does it again."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.effects import Effect
from protocol.member.member import Member
from tests.vectors.coding import error_of, plain, plain_effect, seen

Step = dict[str, Any]
Case = dict[str, Any]

EVENTS = (
    *("begin", "opened", "received", "closed", "failed", "nudge", "forsake", "suspend", "leave"),
    *(
        "end",
        "expire",
        "announce",
        "subscribe",
        "send",
        "withdraw",
        "ask",
        "abandon",
        "serve",
        "stop_serving",
    ),
    *("stream", "finish", "fail", "returned", "elect", "taken", "next_frame"),
)
"""The methods of `Member` that are events."""


class Recorded(Member):
    """A member of which every event is a step. `setup`: the arguments that are not the default."""

    skips_idle = False
    """Asking in vain for the next frame is no step."""

    def __init__(self, name: str, setup: dict[str, Any]) -> None:
        self.roll = 0.0
        numbers = itertools.count(1)
        self.case: Case = {"name": name, "setup": setup, "steps": []}
        self._depth = 0
        self._untold: list[Effect] = []
        self._before: dict[str, Any] = {}
        options = {"id": "ann", "agents": [], "metadata": {}, "token": "t", **setup}
        limits = {"resume_s": 0.0, **options.get("limits", {})}
        options["limits"] = MembershipLimits(**limits)
        nonces = itertools.count(1)
        super().__init__(
            **options,
            nonce=lambda: str(next(nonces)),
            roll=lambda: self.roll,
            turn_id=lambda: f"turn-{next(numbers)}",
        )

    def take_effects(self) -> list[Effect]:
        """What is to be done, as the steps tell it."""
        effects, self._untold = self._untold, []
        return effects

    def play(self, event: dict[str, Any]) -> Step:
        """Let an event happen, as a file tells it. Returns the step."""
        arguments = {key: value for key, value in event.items() if key != "name"}
        self.roll = arguments.pop("roll")
        now = Instant(arguments.pop("at"), arguments.pop("wall_ms"))
        method = getattr(self, event["name"])
        if "now" in inspect.signature(method).parameters:
            arguments["now"] = now
        if arguments.get("error") is not None:
            arguments["error"] = error_of(arguments["error"])
        before = len(self.case["steps"])
        self._now = now
        try:
            method(**arguments)
        except Exception:  # it is told in the step
            assert len(self.case["steps"]) == before + 1
        self.take_effects()
        return dict(self.case["steps"][-1])

    @contextmanager
    def recorded(self, name: str, arguments: dict[str, Any]) -> Iterator[Step]:
        """Write down what happens inside, unless it is part of another event."""
        step: Step = {}
        if self._depth:
            yield step
            return
        now: Instant = arguments.pop("now", None) or self._now
        self._now = now
        told = {key: plain(value) for key, value in arguments.items()}
        instant = {"at": now.at, "wall_ms": now.wall_ms, "roll": self.roll}
        step["event"] = {"name": name, **instant, **told}
        self._depth += 1
        try:
            yield step
        except Exception as error:
            step["raises"] = plain(error)
            raise
        finally:
            self._depth -= 1
            self._write(step)

    def _write(self, step: Step) -> None:
        effects = super().take_effects()
        self._untold += effects
        after = seen(self)
        is_idle = step["event"]["name"] == "next_frame" and step["returns"] is None
        if is_idle and self.skips_idle:
            return
        step["effects"] = [plain_effect(effect) for effect in effects]
        changed = {k: v for k, v in after.items() if k not in self._before or self._before[k] != v}
        step["after"], self._before = changed, after
        self.case["steps"].append(step)

    _now = Instant(1000.0, 1_700_001_000_000)


def _recorded(name: str) -> Callable[..., Any]:
    method = getattr(Member, name)
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Recorded, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        given = dict(arguments)
        with self.recorded(name, arguments) as step:
            returned = method(self, **given)
            step["returns"] = plain(returned)
        return returned

    return call


for _name in EVENTS:
    setattr(Recorded, _name, _recorded(_name))
