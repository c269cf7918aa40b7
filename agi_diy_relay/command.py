"""The command `agi-mesh`: what a person does with a mesh, from a terminal."""

from actors.cli.main import main

__all__ = ["main"]
