"""`agi-mesh tail`: what is said in a mesh, as it is said."""

from typing import Any

import anyio
import click

from actors.cli import shown
from actors.cli.hearing import heard
from actors.cli.place import Place, options
from actors.cli.running import run
from protocol.member.errors import RelayError
from protocol.member.messages import Message, is_offline


@click.command()
@options
@click.option("--type", "types", multiple=True, help="Only this type. May be given several times.")
@click.option("--peer", help="Only what is from or to this peer or agent.")
@click.option("--turn", help="Only this turn: a command and its answers.")
@click.option(
    "--history",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="First the last N messages from before.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each message.")
def tail(
    *,
    place: Place,
    types: tuple[str, ...],
    peer: str | None,
    turn: str | None,
    history: int,
    count: int | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """What is said in the mesh, until you press Ctrl-C.

    It shows what goes to everyone. What peers say to one another alone (`direct`, and the answers
    to commands that ask for that) nobody else gets.
    """

    def is_wanted(message: Message) -> bool:
        fields = message.fields
        names = (message.sender, message.origin, message.to, fields.get("targetInstanceId"))
        return (
            (not types or message.type in types)
            and (peer is None or peer in names)
            and (turn is None or message.turn_id == turn)
        )

    async def follow() -> None:
        left = count
        with anyio.move_on_after(seconds):
            async with place.join(history=history, program="agi-mesh tail") as observer:
                shown.note(f"listening at {place.shown}; Ctrl-C ends it")
                async for message in heard(observer):
                    if isinstance(message, RelayError):
                        shown.note(f"some messages are missing here: {message}")
                    elif is_wanted(message):
                        _show(message, as_json=as_json)
                        left = None if left is None else left - 1
                        if left == 0:
                            return

    run(follow)


def _show(message: Message, *, as_json: bool) -> None:
    if as_json:
        shown.say_json(message.fields)
    else:
        shown.say(line(message))


def line(message: Message) -> str:
    """A message in one line.

    >>> line(Message({"type": "direct", "from": "ann", "to": "coder", "data": {"command": "hi"}}))
    'direct      ann -> coder: hi'
    >>> line(Message({"type": "presence", "from": "bob", "data": {"agents": ["coder"]}}))
    'presence    bob: is here with coder'
    """
    sender, to = message.origin or "?", message.to
    if message.sender not in (None, sender):
        sender = f"{message.sender} of {sender}"
    names = shown.plain(sender if to is None else f"{sender} -> {to}")
    is_turn = message.turn_id is not None and message.type != "presence"
    turn = f" [{shown.plain(str(message.turn_id)[:8])}]" if is_turn else ""
    return f"{shown.plain(message.type):<11} {names}{turn}: {_words(message)}"


def _words(message: Message) -> str:
    data: Any = message.data
    if message.type == "presence":
        if is_offline(message):
            return "has gone"
        agents = message.word("agents")
        names = [shown.value(agent) for agent in agents] if isinstance(agents, list) else []
        return f"is here with {', '.join(names)}" if names else "is here"
    for name in ("command", "chunk", "result", "error"):
        said = message.word(name)
        if said is not None:
            return shown.value(said)
    return shown.value(data)
