"""Makes the installed shape of the project: all of it inside one package, `agi_diy_relay`.

The repository has relay.py, actors/ and protocol/ at its top, because AgentCore unpacks it and
runs relay.py there. Installed, such names would be in everybody's way: PyPI has a package
`protocol`, and a program may have an actors.py. So the wheel gets a copy in which they are inside
`agi_diy_relay`, and in which every import says so. hook.py calls `stage_package` for each wheel.

    python -m distribution.staging package FOLDER    the package, as the wheel has it
    python -m distribution.staging tests FOLDER      tests, examples and documents, to run beside it

The imports are changed in the text (so comments and line numbers stay), then the syntax tree of the
result is searched for any name that was missed: that fails the build. Only the standard library is
used here.
"""

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "agi_diy_relay"
OURS: Final = ("actors", "protocol", "relay")
"""What stands at the top of the repository, and inside the package once installed."""

_NAMES: Final = "|".join(OURS)
_REWRITINGS: Final = (
    (re.compile(rf"\bfrom ({_NAMES})((?:\.\w+)*) import\b"), rf"from {PACKAGE}.\1\2 import"),
    (re.compile(rf"\bimport ({_NAMES})\b(?![.,]| as )"), rf"from {PACKAGE} import \1"),
    (re.compile(rf"-m ({_NAMES})\b"), rf"-m {PACKAGE}.\1"),
)
_LEFT_OUT: Final = ("__pycache__", "node_modules")
_OF_THE_CLONE: Final = frozenset(
    ROOT / "tests" / name
    for name in (
        "agentcore",
        "browser",
        "protocol/verification/mutation.py",
        "protocol/verification/test_mutation.py",
        "test_architecture.py",
        "test_docs.py",
        "test_package.py",
        "test_project.py",
    )
)
_DOTTED: Final = re.compile(r"(actors|protocol)(\.\w+)+(:\w+)?")


class Missed(Exception):
    """A name in the rewritten text still means the top of the repository."""


def rewrite(text: str) -> str:
    """Text (code, or a document with code in it) with every import of ours inside the package.

    >>> rewrite("from protocol.limits import Limits")
    'from agi_diy_relay.protocol.limits import Limits'
    >>> rewrite("from protocol import codec; import relay")
    'from agi_diy_relay.protocol import codec; from agi_diy_relay import relay'
    >>> rewrite("python -m protocol.verification check")
    'python -m agi_diy_relay.protocol.verification check'
    """
    for pattern, replacement in _REWRITINGS:
        text = pattern.sub(replacement, text)
    return text


def missed(code: str) -> Iterator[str]:
    """What `rewrite` could not change in this Python module, as "line N: ...".

    >>> list(missed("import actors.clock"))
    ['line 1: import actors.clock']
    >>> list(missed("name = 'protocol.limits'"))
    ["line 1: the name 'protocol.limits' in a string; make it from __name__ or __package__"]
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in OURS:
                    yield f"line {node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            if not node.level and (node.module or "").partition(".")[0] in OURS:
                yield f"line {node.lineno}: from {node.module} import ..."
        elif isinstance(node, ast.Constant) and _DOTTED.fullmatch(str(node.value)):
            hint = "make it from __name__ or __package__"
            yield f"line {node.lineno}: the name {node.value!r} in a string; {hint}"


def _copy(source: Path, target: Path) -> None:
    """One file or folder; Python and Markdown are rewritten on the way. Raises Missed."""
    if source.is_dir():
        for path in source.iterdir():
            if path.name not in _LEFT_OUT and path not in _OF_THE_CLONE:
                _copy(path, target / path.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix not in (".py", ".md"):
        shutil.copyfile(source, target)
        return
    text = rewrite(source.read_text(encoding="utf-8"))
    for what in missed(text) if source.suffix == ".py" else ():
        raise Missed(f"{source}, {what}")
    target.write_text(text, encoding="utf-8")


def stage_package(folder: Path) -> Path:
    """The package as it is installed, below `folder`. Returns its path. Raises Missed."""
    package = folder / PACKAGE
    _copy(ROOT / PACKAGE, package)
    for name in ("actors", "protocol", "relay.py"):
        _copy(ROOT / name, package / name)
    for name in ("relay-client.js", "src", "console", "index.html", "package.json", "README.md"):
        _copy(ROOT / "browser" / name, package / "browser" / name)
    return package


def stage_tests(folder: Path) -> None:
    """Tests, examples and documents with imports of the installed package, below `folder`.

    Left out is what is about the clone itself: its documents, its deployment, its mutants.
    """
    for name in ("tests", "examples", "docs", "README.md", "pyproject.toml"):
        _copy(ROOT / name, folder / name)


def main(arguments: list[str]) -> int:
    """`python -m distribution.staging package|tests FOLDER`. Returns the exit code."""
    steps = {"package": stage_package, "tests": stage_tests}
    if len(arguments) != 2 or arguments[0] not in steps:
        sys.stderr.write("usage: python -m distribution.staging package|tests FOLDER\n")
        return 2
    shutil.rmtree(arguments[1], ignore_errors=True)
    steps[arguments[0]](Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
