"""`agi-mesh ask`: a command for an agent, and its answer as it comes."""

from typing import Any

import click

from actors.cli import shown
from actors.cli.place import Place, options
from actors.cli.running import possible, run
from actors.cli.send import read_stdin
from protocol.member.errors import TurnError


@click.command()
@options
@click.argument("agent")
@click.argument("text", default="-")
@click.option("--peer", help="The peer that is meant, where several have the agent.")
@click.option("--any", "any_", is_flag=True, help="Any of the peers that have the agent.")
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    help="The longest silence of the agent.",
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each chunk and the end.")
def ask(
    *,
    place: Place,
    agent: str,
    text: str,
    peer: str | None,
    any_: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Give AGENT the command TEXT, and show its answer as it comes.

    Without TEXT the command is read from stdin. Ctrl-C tells the agent to stop. If the command
    fails, its error is on stderr, and the exit code is 1.
    """
    command = read_stdin() if text == "-" else text
    if peer is not None and any_:
        raise click.UsageError("--any and --peer cannot both say who is meant")

    async def work() -> None:
        async with place.join(subscribe=False, program="agi-mesh ask") as asker:
            with possible():
                turn = asker.ask(agent, command, peer=peer, any=any_, timeout_s=timeout)
            chunks: list[str] = []
            try:
                async for chunk in turn:
                    chunks.append(chunk)
                    if as_json:
                        shown.say_json({"chunk": chunk})
                    else:
                        shown.say(shown.answer(chunk), end="")
                _end(await turn, chunks, as_json=as_json)
            except TurnError as error:
                if as_json:
                    shown.say_json({"error": str(error), "kind": type(error).__name__})
                elif chunks:
                    shown.say("")  # the sentence has a line of its own
                raise

    run(work)


def _end(result: Any, chunks: list[str], *, as_json: bool) -> None:
    """The result; for people, unless they have read it in chunks."""
    said = "".join(chunks)
    if as_json:
        shown.say_json({"result": result})
    elif result is None or (chunks and result in (said, said.strip())):
        if not said.endswith("\n") and chunks:
            shown.say("")
    else:
        if chunks and not said.endswith("\n"):
            shown.say("")
        shown.say(shown.answer(result if isinstance(result, str) else shown.value(result)))
