"""What askers have missed of the end of a turn, and are told when they are back."""

from typing import Any

from protocol.member.messages import Message
from protocol.member.owed import NAME_CHARS_MAX, Debts


def command(turn: str, asker: str = "ann", **fields: Any) -> Message:
    said = {"type": "direct", "from": asker, "turnId": turn, "data": {"command": "x" * 100}}
    return Message({**said, **fields})


def refused(turn: Any, target: Any = "ann") -> Message:
    data = {"code": "unknown_target", "target": target}
    return Message({"type": "error", "from": "relay", "turnId": turn, "data": data})


def due(debts: Debts, *here: str) -> list[tuple[str | None, str, Any]]:
    return [(owed.command.turn_id, owed.agent, owed.data) for owed in debts.due(set(here))]


def test_what_is_owed_is_told_once_and_to_those_that_are_here() -> None:
    debts = Debts(9)
    debts.owe(command("1"), "coder", {"n": 1})
    debts.owe(command("2", "tab", instanceId="bob"), "coder", {"n": 2})
    assert due(debts, "eve", "tab") == []
    assert due(debts, "bob") == [("2", "coder", {"n": 2})]
    assert due(debts, "ann", "bob") == [("1", "coder", {"n": 1})]
    assert due(debts, "ann", "bob") == []


def test_an_end_that_did_not_arrive_is_owed_and_no_other() -> None:
    debts = Debts(9)
    debts.given(command("1"), "coder", {})
    debts.undelivered(refused("2"))
    debts.undelivered(refused("1", "bob"))
    for nonsense in (None, 7, ["ann"]):
        debts.undelivered(refused("1", nonsense))
        debts.undelivered(refused(nonsense))
    assert due(debts, "ann", "bob") == []
    debts.undelivered(refused("1"))
    assert due(debts, "ann") == [("1", "coder", {})]
    debts.undelivered(refused("1"))
    assert due(debts, "ann") == []


def test_only_names_are_kept_and_no_long_ones_and_not_too_many() -> None:
    debts = Debts(2)
    debts.owe(command("x" * (NAME_CHARS_MAX + 1)), "coder", {})
    for turn in "123":
        debts.owe(command(turn), "coder", {})
        debts.given(command(f"given {turn}"), "coder", {})
    owed = list(debts.due({"ann"}))
    assert [one.command.turn_id for one in owed] == ["2", "3"]
    assert owed[0].command.data is None
    for turn in "123":
        debts.undelivered(refused(f"given {turn}"))
    assert [turn for turn, _, _ in due(debts, "ann")] == ["given 2", "given 3"]


def test_nothing_is_owed_after_the_end() -> None:
    debts = Debts(2)
    debts.owe(command("1"), "coder", {})
    debts.given(command("2"), "coder", {})
    debts.clear()
    debts.undelivered(refused("2"))
    assert due(debts, "ann") == []
