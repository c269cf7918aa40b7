"""python -m tests.vectors: writes the vectors; `--check` fails if one is stale."""

import argparse
import sys

from tests.vectors.files import FILES, path, written


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if one is stale")
    check = parser.parse_args().check
    stale = 0
    for room in FILES:
        text, file = written(room), path(room)
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        sys.stdout.write(f"{file.name} {'is stale' if check else 'written'}\n")
        if not check:
            file.write_text(text)
    if check and stale:
        sys.stdout.write("run `python -m tests.vectors`, and commit what it writes\n")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
