"""The walls of the house: who may import whom, how long a module may be, and what docs/architecture.md says of it."""  # noqa: E501

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from tests import ROOT

MAY_IMPORT: dict[str, set[str]] = {
    "protocol": set(),
    "protocol.mesh": {"protocol"},
    "protocol.member": {"protocol"},
    "protocol.verification": {"protocol", "protocol.mesh", "protocol.member"},
    "actors": {"protocol"},
    "actors.transports": {"actors", "protocol"},
    "actors.backplane": {"actors", "protocol", "protocol.mesh"},
    "actors.relay": {
        "actors",
        "actors.backplane",
        "actors.transports",
        "protocol",
        "protocol.mesh",
    },
    "actors.host": {
        "actors",
        "actors.backplane",
        "actors.relay",
        "actors.transports",
        "protocol",
        "protocol.mesh",
    },
    "actors.client": {"actors", "protocol", "protocol.member"},
    "actors.cli": {"actors", "actors.client", "actors.host", "protocol", "protocol.member"},
    "relay": {"actors.host", "actors.relay", "protocol"},
}
"""Which rooms each room may import, besides itself. `actors` and `protocol` alone mean the modules
at their top, which both wings share. Nothing imports `protocol.verification`, nor the façade."""

IN_PROTOCOL = {"attrs", "msgspec"}
NOT_IN_PROTOCOL = {"asyncio", "anyio", "time", "random", "logging", "threading", "socket"}
LINES_MAX = 400
REASON = "onger than 400 lines because"


def modules() -> dict[str, Path]:
    """Every module of the house, by its name."""
    paths = [ROOT / "relay.py"]
    paths += [path for top in ("actors", "protocol") for path in (ROOT / top).rglob("*.py")]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


MODULES = modules()


def room(module: str) -> str:
    """The room of a module: its package's wing, or the top that the wings share.

    >>> room("actors.relay.peer"), room("actors.clock"), room("protocol.verification.model.mesh")
    ('actors.relay', 'actors', 'protocol.verification')
    """
    parts = module.split(".")
    is_wing = len(parts) > 2 or ROOT.joinpath(*parts, "__init__.py").exists()
    return ".".join(parts[: 2 if is_wing else 1])


def imported(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it: full names, of modules where they are ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module or ""


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_rooms_that_its_room_may_use(module: str) -> None:
    names = set(imported(MODULES[module]))
    assert not {name.partition(".")[0] for name in names} & {"agi_diy_relay", "tests", "examples"}
    rooms = {room(name) for name in names if name in MODULES}
    assert rooms <= MAY_IMPORT[room(module)] | {room(module)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for name in imported(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_no_room_leads_back_up_to_itself() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_the_protocol_knows_no_io_no_time_and_no_chance() -> None:
    for module, path in MODULES.items():
        if module.startswith("protocol") and room(module) != "protocol.verification":
            assert not tops(path) & NOT_IN_PROTOCOL, path
            assert tops(path) <= IN_PROTOCOL | {"protocol"} | sys.stdlib_module_names, path


def test_a_long_module_says_why() -> None:
    folders = ("actors", "protocol", "agi_diy_relay", "distribution", "benchmarks", "docs")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in [ROOT / "relay.py", *paths]:
        text = path.read_text()
        if text.count("\n") > LINES_MAX:
            words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
            assert REASON in words, f"{path}: its docstring gives no reason ('L{REASON} ...')"


# docs/architecture.md -----------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_table_of_files_has_every_module() -> None:
    listed = re.findall(r"^\| ([\w/.]+) \|", PAGE, re.MULTILINE)
    folders = tuple(name for name in listed if name.endswith("/") and "verification" in name)
    for path in MODULES.values():
        name = str(path.relative_to(ROOT))
        assert path.name == "__init__.py" or name in listed or name.startswith(folders), name
    for name in listed:
        assert (ROOT / name).exists() or name == "file", name


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"\b(?:actors|protocol|tests|browser)/[\w/.-]*\w", PAGE):
        assert (ROOT / name).exists() or any(ROOT.glob(f"{name}*")), name


def path_of_one_message() -> list[str]:
    section = PAGE.split("## The path of one message\n")[1].split("\n## ")[0]
    starts = [found.start() for found in re.finditer(r"^\d+\. ", section, re.MULTILINE)]
    return [section[a:b] for a, b in pairwise([*starts, len(section)])]


def defined(path: Path) -> set[str]:
    """The names that a module defines: functions, classes, constants, and `Class.member`s."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(f"{node.name}.{inner.name}")
    return names


def test_the_path_of_one_message_names_what_is_in_the_code() -> None:
    steps = path_of_one_message()
    assert len(steps) >= 7
    for step in steps:
        files = re.findall(r"\b(?:actors|protocol)/[\w/]+\.py", step)
        assert files, f"no file is named in: {step}"
        names = {name for file in files for name in defined(ROOT / file)}
        for found in re.findall(r"`([A-Za-z_]+(?:\.\w+)?)(?:\([^)]*\))?`", step):
            assert found in names, f"{found} is in none of {files}"
