"""Who is behind, and which answers it need not get (rule 20)."""

from typing import Any, Final

from protocol.verification.model.reading import LONE_SURROGATE, Number

ANSWERS: Final = ("ack", "stream", "turn_end", "error")


def takes_arrays(data: Any) -> bool:
    """The `data` of a presence says so."""
    accepted = data.get("accept") if isinstance(data, dict) else None
    return isinstance(accepted, list) and "batch" in accepted


def turn_of(value: dict[str, Any]) -> str | Number | None:
    """The turn that a message names: a text or a number. None: nothing, or no turn."""
    turn = value.get("turnId")
    if isinstance(turn, str):
        return LONE_SURROGATE.sub("\ufffe", turn)
    return turn if isinstance(turn, Number) else None


class Begun:
    """The turns that one peer has begun, the latest last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.turns: list[str | Number] = []

    def note(self, value: dict[str, Any]) -> None:
        """The peer has said this, and it went to others."""
        turn = turn_of(value)
        if turn is not None and value["type"] not in ANSWERS:
            self.turns = [*(other for other in self.turns if other != turn), turn][-self.most :]


def is_for_others(value: dict[str, Any], begun: Begun, peer: str, agents: set[str | None]) -> bool:
    """It is an answer in a turn that this peer has not begun, and it names neither the peer nor, in
    `to`, one of its agents."""
    turn = turn_of(value)
    if value["type"] not in ANSWERS or turn is None or turn in begun.turns:
        return False
    is_named = peer in (value.get("to"), value.get("targetInstanceId"))
    return not is_named and value.get("to") not in agents - {None}
