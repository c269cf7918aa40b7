"""The command `agi-mesh`: what a person does with a mesh, from a terminal."""

import sys

from protocol.about import MissingExtra, missing_extra

try:
    from actors.cli.main import main
except ModuleNotFoundError as error:
    missing: MissingExtra = missing_extra(error, "cli", "agi-mesh")

    def main() -> int:  # type: ignore[misc]
        """Say what is missing."""
        sys.stderr.write(f"{missing}\n")
        return 1


__all__ = ["main"]
