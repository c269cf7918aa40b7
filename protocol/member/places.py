"""How many commands a service has at a time, and which of them wait for the one before to end.

A handler may be one that cannot run twice at once (`at_a_time`). Commands beyond that wait in its
service, in their order, up to `service_queue_max`. A place is free again when the handler itself
has ended. That may be long after its command was over: a handler that was cancelled takes its time,
and a thread cannot be stopped at all.
"""

from collections import deque

import attrs


@attrs.define
class _Places:
    """The places of one service: commands by their numbers."""

    at_a_time: int
    taken: set[int] = attrs.Factory(set)
    waiting: deque[int] = attrs.Factory(deque)


class Places:
    """The places of all services of a peer. A service without a bound has none here, and takes
    everything at once."""

    def __init__(self, queue_max: int) -> None:
        self.queue_max = queue_max
        self._by_service: dict[int, _Places] = {}

    def open(self, service: int, at_a_time: int | None) -> None:
        """A service begins."""
        if at_a_time is not None:
            self._by_service[service] = _Places(at_a_time)

    def close(self, service: int) -> tuple[int, ...]:
        """A service has ended. Returns what waited there."""
        places = self._by_service.pop(service, None)
        return () if places is None else tuple(places.waiting)

    def is_full(self, service: int) -> bool:
        """One more would find no place, not even to wait."""
        places = self._by_service.get(service)
        return places is not None and len(places.waiting) >= self.queue_max

    def enter(self, service: int, command: int) -> bool:
        """A command comes. Returns whether it is its turn at once."""
        places = self._by_service.get(service)
        if places is None:
            return True
        if len(places.taken) >= places.at_a_time:
            places.waiting.append(command)
            return False
        places.taken.add(command)
        return True

    def withdraw(self, service: int, command: int) -> bool:
        """A command is over. Returns whether it was still waiting."""
        places = self._by_service.get(service)
        if places is None or command not in places.waiting:
            return False
        places.waiting.remove(command)
        return True

    def leave(self, command: int) -> int | None:
        """The handler of this command has ended. Returns whose turn it is now, if anyone's."""
        for places in self._by_service.values():
            if command in places.taken:
                places.taken.remove(command)
                if places.waiting:
                    following = places.waiting.popleft()
                    places.taken.add(following)
                    return following
        return None
