"""`agi-mesh serve`: a program of yours is an agent, and needs to know nothing of meshes.

Each command runs the program (in a shell). It gets the text on its stdin, or the JSON of a command
that is none. Each line of its output is a chunk at once, and all of it the result. If it fails, the
end of what it wrote to stderr is the error. If the command is cancelled, the program and all that
it has started are ended.
"""

import codecs
import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc
import click

from actors.cli import shown
from actors.cli.place import Place, options
from actors.cli.running import CannotDo, run
from actors.client.command import Command

OUTPUT_CHARS_MAX: Final = 2**17
"""The result of a longer output is its end: a message has a bound. The chunks are all of it."""
LINE_CHARS_MAX: Final = 2**16
"""A longer line is several chunks."""
ERROR_CHARS_MAX: Final = 500
END_WITHIN_S: Final = 3.0
"""A program that is told to end has so long; then it is killed."""


@click.command()
@options
@click.argument("agent")
@click.option("--exec", "program", required=True, help="What each command runs, in a shell.")
@click.option("--at-a-time", type=click.IntRange(1), help="Run so many at once; others wait.")
def serve(*, place: Place, agent: str, program: str, at_a_time: int | None) -> None:
    """Be the agent AGENT: each command runs a program.

    The program gets the command's text on its stdin. The lines of its output are sent at once, as
    chunks, and all of its output is the result. If it fails, so does the command, with the end of
    what it wrote to stderr. If the asker waits no more, the program is ended. AGI_MESH_ASKER and
    AGI_MESH_TURN in its environment say who asks.

    \b
    agi-mesh serve upper --exec 'tr a-z A-Z'
    agi-mesh serve coder --exec 'claude -p' --at-a-time 1
    """

    async def work() -> None:
        async with place.join(agents=[agent], subscribe=False, program="agi-mesh serve") as peer:
            shown.note(f"{agent} serves at {place.shown} as {peer.id}; Ctrl-C ends it")
            await peer.serve(partial(answer, program), [agent], at_a_time=at_a_time)

    run(work)


async def answer(program: str, command: Command) -> Any:
    """The result of one command. Raises CannotDo if the program fails."""
    asked = command.text if isinstance(command.text, str) else json.dumps(command.text)
    names = {"AGI_MESH_ASKER": command.asker or "", "AGI_MESH_TURN": command.message.turn_id or ""}
    shown.note(f"{command.asker} asks: {shown.value(asked)[:100]}")
    process = await anyio.open_process(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **{name: _no_null(value) for name, value in names.items()}},
        start_new_session=True,  # so that all that it starts can be ended with it
    )
    written = bytearray()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_give, process, asked)
            tasks.start_soon(_read_errors, process, written)
            output = await _pass_on(process, command)
        code = await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if code != 0:
        raise CannotDo(_failure(written, code))
    return output.removesuffix("\n")


async def _give(process: anyio.abc.Process, asked: str) -> None:
    assert process.stdin is not None
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.send(asked.encode("utf-8", "surrogatepass"))
    with suppress(OSError, anyio.BrokenResourceError):  # it may not want to read all of it
        await process.stdin.aclose()


async def _read_errors(process: anyio.abc.Process, written: bytearray) -> None:
    """Keep the end of what it writes to stderr."""
    assert process.stderr is not None
    async for part in process.stderr:
        written += part
        del written[: -4 * ERROR_CHARS_MAX]  # a character has 4 bytes at most


async def _pass_on(process: anyio.abc.Process, command: Command) -> str:
    """Stream the lines of the output. Returns all of it, or its end."""
    assert process.stdout is not None
    decode, output, rest = codecs.getincrementaldecoder("utf-8")("replace").decode, "", ""

    async def stream(text: str) -> None:
        for line in text.splitlines(keepends=True):
            await command.stream(line)

    async for part in process.stdout:
        rest += decode(part)
        whole = len(rest) if len(rest) > LINE_CHARS_MAX else rest.rfind("\n") + 1
        await stream(rest[:whole])
        output, rest = (output + rest[:whole])[-OUTPUT_CHARS_MAX:], rest[whole:]
    rest += decode(b"", final=True)
    await stream(rest)
    return (output + rest)[-OUTPUT_CHARS_MAX:]


async def _end(process: anyio.abc.Process) -> None:
    """End the program, and all that it has started."""
    ends: tuple[Callable[[], None], ...] = (process.terminate, process.kill)
    if os.name == "posix":
        signals = (signal.SIGTERM, signal.SIGKILL)
        ends = tuple(partial(os.killpg, process.pid, number) for number in signals)
    for end in ends:
        with suppress(ProcessLookupError, PermissionError):
            end()
        with anyio.move_on_after(END_WITHIN_S):
            await process.wait()
            break
    await process.aclose()


def _failure(written: bytearray, code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    words = written.decode("utf-8", "replace").strip()[-ERROR_CHARS_MAX:]
    return f"the program {how}: {words}" if words else f"the program {how}"


def _no_null(value: str) -> str:
    """What an environment can hold."""
    return value.replace("\0", "").encode("utf-8", "replace").decode()
