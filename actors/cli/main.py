"""The command `agi-mesh`: what a person does with a mesh, from a terminal.

Each subcommand is a module beside this one, with `add(subparsers)`; it sets `run` to what takes the
arguments and returns the exit code. Results go to stdout, everything else to stderr.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from actors.cli import token
from protocol.about import MissingExtra, __version__

PROGRAM: Final = "agi-mesh"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 not possible, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Agent meshes from a terminal.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    token.add(parser.add_subparsers(required=True, metavar="COMMAND"))
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except (token.BadToken, MissingExtra) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 1
    return code
