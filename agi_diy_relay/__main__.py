"""The relay as a program: the command `agi-diy-relay`, and `python -m agi_diy_relay`."""

import signal
import sys

from protocol.about import MissingExtra


def main() -> int:
    """Run the relay with the options of the command line. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while the packages are imported
    try:
        from relay import main as run  # noqa: PLC0415 (it needs an extra)
    except MissingExtra as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
