"""The relay as a program: the command `agi-diy-relay`, and `python -m agi_diy_relay`."""

import sys

from protocol.about import missing_extra


def main() -> int:
    """Run the relay with the options of the command line. Returns the exit code."""
    try:
        from relay import main as run  # noqa: PLC0415 (it needs an extra)
    except ModuleNotFoundError as error:
        sys.stderr.write(missing_extra(error, "relay", "the relay") + "\n")
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
