"""The step of hatchling's wheel build that puts everything inside one package: see staging.py.

An editable installation needs no copy: it puts the clone itself on the path.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # hatchling runs this file alone

from distribution import staging


class PackageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Stages the package before a wheel is built, and removes it afterwards."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version` is hatchling's word for the kind of build: "standard" or "editable"."""
        self._folder = tempfile.TemporaryDirectory()
        if version == "standard":
            package = staging.stage_package(Path(self._folder.name))
            build_data["force_include"][str(package)] = staging.PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The copy goes."""
        self._folder.cleanup()
