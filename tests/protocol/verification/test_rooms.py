"""Which modules of protocol.verification open sockets, wait, or know the protocol's own code."""

import ast
import importlib
from pathlib import Path

import pytest

from protocol import verification

ROOM = Path(verification.__file__).parent
PACKAGE = verification.__name__
PROTOCOL = PACKAGE.rpartition(".")[0]

MAY = {
    "subjects/live.py": {"socket", "websockets"},
    "conformance/sockets.py": {"asyncio", "socket", "websockets"},
    "conformance/joining.py": {"asyncio"},
    "conformance/peer.py": {"asyncio"},
    "conformance/world.py": {"asyncio"},
    "conformance/check.py": {"asyncio"},
    "conformance/command.py": {"asyncio"},
    "conformance/testing.py": {"asyncio"},
}
"""Who may have to do with sockets, and with what of it. Only two names open any."""

OF_SOCKETS = {"anyio", "asyncio", "http", "select", "selectors", "socket", "ssl", "threading"} | {
    "socketserver",
    "trio",
    "urllib.request",
    "uvicorn",
    "websockets",
}


def modules_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(ROOM)) for path in folder.rglob("*.py"))


def imports(module: str) -> set[str]:
    """The full names of all that a module imports: modules, and what it takes from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOM / module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("module", modules_under(ROOM))
def test_only_rooms_that_say_so_have_to_do_with_sockets(module: str) -> None:
    used = {of for of in OF_SOCKETS for name in imports(module) if is_in(name, of)}
    assert used == MAY.get(module, set())


def test_only_two_rooms_open_sockets_and_their_names_say_so() -> None:
    opening = {module for module, used in MAY.items() if used & {"socket", "websockets"}}
    assert opening == {"subjects/live.py", "conformance/sockets.py"}


@pytest.mark.parametrize("module", modules_under(ROOM / "model"))
def test_the_model_shares_no_code_with_what_it_checks(module: str) -> None:
    ours = {name for name in imports(module) if is_in(name, PROTOCOL)}
    others = {name for name in ours if not is_in(name, f"{PACKAGE}.model")}
    assert others <= {f"{PROTOCOL}.limits.Limits"}


@pytest.mark.parametrize("module", modules_under(ROOM / "conformance"))
def test_the_kit_shares_no_code_with_the_relay(module: str) -> None:
    ours = {name for name in imports(module) if is_in(name, PROTOCOL)}
    assert {name for name in ours if not is_in(name, f"{PACKAGE}.conformance")} == set()


@pytest.mark.parametrize(
    ("module", "name"), [("check", "conformance_tests"), ("subjects", "LiveSubject")]
)
def test_what_the_documents_once_imported_is_there_for_one_more_release(
    module: str, name: str
) -> None:
    old = importlib.import_module(f"{PACKAGE}.{module}")
    with pytest.warns(DeprecationWarning, match=name):
        assert getattr(old, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = old.nothing
