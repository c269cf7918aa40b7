"""The command `agi-mesh`: what a person, or a shell script, does with a mesh.

Each subcommand is a module beside this one:

    who      who is there
    tail     what is said
    send     say one thing
    ask      give an agent a command, and show the answer as it comes
    serve    be an agent: a program of yours answers the commands
    record   what is said, with times, as JSON lines; and `replay`
    console  a page that shows who is there, and what they do
    load     a load test of a relay
    mcp      a mesh for MCP clients
    token    who may come in

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 not possible, and one
sentence says why; 2 wrong usage; 130 and 143 interrupted (Ctrl-C, SIGTERM); 141 nobody reads the
results any more.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import click

from actors.cli import ask, console, load, mcp, record, send, serve, shown, tail, token, who
from actors.cli.running import SIGPIPE, CannotDo, Stopped
from protocol.about import MissingExtra, __version__
from protocol.member.errors import RelayError

PROGRAM: Final = "agi-mesh"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A command says more about itself: agi-mesh ask --help",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Agent meshes from a terminal.

    Where the mesh is: --url (by default ws://localhost:8080/ws), or --arn for one on AgentCore.
    These may also stand in the environment (AGI_MESH_URL, AGI_MESH_ARN, AGI_MESH_MESH,
    AGI_MESH_TOKEN), or in a small file (--config).
    """


for command in (
    who.who,
    tail.tail,
    send.send,
    ask.ask,
    serve.serve,
    record.record,
    record.replay,
    console.console,
    load.load,
    mcp.mcp,
    token.token,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    try:
        code = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (CannotDo, MissingExtra, RelayError) as error:
        shown.note(f"{PROGRAM}: {error}")  # in which others' words may be
        return 1
    except Stopped as stopped:
        if stopped.number == signal.SIGINT:
            lead = "\n" if sys.stderr.isatty() else ""  # behind the ^C that a terminal shows
            sys.stderr.write(f"{lead}{PROGRAM}: interrupted\n")
        elif stopped.number == SIGPIPE:
            # Python would say so again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + stopped.number
    return code if isinstance(code, int) else 0
