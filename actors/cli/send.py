"""`agi-mesh send`: one message."""

import json
import sys
from typing import Any

import anyio
import click

from actors.cli import shown
from actors.cli.hearing import heard
from actors.cli.place import Place, options
from actors.cli.running import CannotDo, possible, run
from actors.client.peer import Peer
from protocol.member.errors import RelayError
from protocol.member.messages import sentence_of


@click.command()
@options
@click.argument("text", required=False)
@click.option("--to", help="A peer, or an agent. Without it: everyone.")
@click.option("--peer", help="The peer that is meant, where several have the agent.")
@click.option("--type", help="The type.  [default: broadcast, or direct with --to]")
@click.option("--data", help="JSON for `data`, instead of TEXT.")
@click.option("--topic", help="What it is about.")
@click.option("--turn", help="The turn id.")
@click.option("--from", "agent", help="An agent of ours that says it.")
def send(
    *,
    place: Place,
    text: str | None,
    to: str | None,
    peer: str | None,
    type: str | None,
    data: str | None,
    topic: str | None,
    turn: str | None,
    agent: str | None,
) -> None:
    """Say TEXT to everyone, or to one peer or agent.

    TEXT may be `-`: then it is read from stdin. The command ends when the relay has taken the
    message; if it does not, the exit code is 1.
    """
    if (text is None) == (data is None):
        raise click.UsageError("say TEXT, or --data JSON: one of the two")
    said = _data(data) if data is not None else _text(text or "")
    kind = type or ("broadcast" if to is None else "direct")
    agents = [] if agent is None else [agent]

    async def work() -> None:
        joined = place.join(agents=agents, subscribe=False, program="agi-mesh send")
        async with joined as sender:
            names: dict[str, Any] = {"to": to, "peer": peer, "topic": topic, "turn_id": turn}
            with possible():
                await sender.send(kind, said, agent=agent, **names)
            await _taken(sender)

    run(work)


async def _taken(sender: Peer) -> None:
    """Wait until the relay has decided what was sent. Raises CannotDo if it has refused it."""
    await sender.sent()
    async with anyio.create_task_group() as tasks:
        errors: list[str] = []

        async def listen() -> None:
            async for message in heard(sender):
                if isinstance(message, RelayError):
                    errors.append(str(message))
                elif message.type == "error" and message.is_relays:
                    errors.append(sentence_of(message.word("error"), "the relay refused it"))

        tasks.start_soon(listen)
        await sender.announce()  # the relay answers this after what came before it
        tasks.cancel_scope.cancel()
    if errors:
        raise CannotDo(errors[0])


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--data is no JSON: {error}") from None


def _text(text: str) -> str:
    return read_stdin() if text == "-" else text


def read_stdin() -> str:
    """All of stdin, without the newline at its end."""
    if sys.stdin.isatty():
        shown.note("reads from the terminal; Ctrl-D ends it")
    return sys.stdin.read().removesuffix("\n")
