"""How much memory this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

UNKNOWN_BYTES: Final = 2**30
"""What we assume where the system does not say."""


def memory_bytes(root: Path = Path("/")) -> int:
    """The memory (bytes) that this process may use: the least of the machine's and the limits of
    its control groups (cgroups, as containers have them) up the hierarchy.

    `root`: where the file system begins, for tests.
    """
    return min([_physical_bytes(), *_limits(root)])


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN_BYTES


def _limits(root: Path) -> Iterator[int]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2: one hierarchy for everything
            yield from _up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _up(mount: Path, path: str, name: str) -> Iterator[int]:
    """The limits of a group and of all groups above it.

    In a container the path may be that of the host, where the mount begins with our own group.
    """
    group = PurePosixPath(path.lstrip("/"))
    for above in (group, *group.parents):
        try:
            yield int((mount / above / name).read_text())
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
