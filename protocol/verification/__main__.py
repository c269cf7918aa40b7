"""`python -m protocol.verification simulate|check ...`: see `--help` of each."""

import importlib
import sys
from typing import Final

from protocol.about import missing_extra

_COMMANDS: Final = {
    "simulate": ("simulation", "a long random life of a mesh in virtual time"),
    "check": ("conformance", "the claims of the protocol one by one, against a relay at a URL"),
}


def main(arguments: list[str]) -> int:
    """Run one command. The exit code: 0 passed, 1 failed, 2 not understood."""
    if not arguments or arguments[0] not in _COMMANDS:
        lines = [f"  {name:10}{what}" for name, (_, what) in _COMMANDS.items()]
        asked = arguments[:1] in (["-h"], ["--help"])
        usage = f"usage: python -m {__package__} COMMAND ...\n\n"
        print(usage + "\n".join(lines), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    # Only what is asked for is imported: each command has dependencies of its own.
    folder, _ = _COMMANDS[arguments[0]]
    try:
        command = importlib.import_module(f"{__package__}.{folder}.command")
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{missing_extra(error, 'verification', arguments[0])}\n")
        return 2
    code = command.main(arguments[1:])
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
