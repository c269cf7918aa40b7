"""What is borrowed of uvicorn: the list, against the code that borrows and against uvicorn.

When a new uvicorn fails a test here, read actors/transports/uvicorn.py beside uvicorn's
websockets_sansio_impl.py, and actors/host/http.py beside its h11_impl.py: something that one of
them borrows has changed.
"""

import ast
import inspect
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets import websockets_sansio_impl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import Protocol

from actors.host import http
from actors.host.http import HttpProtocol
from actors.transports import borrowed
from actors.transports import uvicorn as fast
from actors.transports.uvicorn import MeshProtocol
from tests import ROOT


def test_the_installed_release_has_everything() -> None:
    assert borrowed.changes() == []


def test_pyproject_asks_for_the_versions_that_were_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"uvicorn{borrowed.supported()}" in project["optional-dependencies"]["relay"]


# The list and the code ----------------------------------------------------------------------------


def attributes_of(tree: ast.AST, owner: str) -> Iterator[str]:
    """The names used as `owner.name` in some code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner:
            yield node.attr


@pytest.fixture(scope="module")
def code() -> ast.Module:
    return ast.parse(inspect.getsource(fast))


def test_everything_that_is_used_of_uvicorns_class_is_on_the_list_and_nothing_else(
    code: ast.Module,
) -> None:
    (ours,) = (
        node
        for node in code.body
        if isinstance(node, ast.ClassDef) and node.name == MeshProtocol.__name__
    )
    used = {*attributes_of(ours, "self"), *attributes_of(ours, "super()")}
    used |= {*attributes_of(code, "protocol"), *attributes_of(code, "self._protocol")}
    made = {*vars(MeshProtocol), *MeshProtocol.__annotations__}
    made_here = {name for name in made if not hasattr(WebSocketsSansIOProtocol, name)}
    dropped = {
        name.value
        for loop in ast.walk(ours)
        if isinstance(loop, ast.For) and isinstance(loop.iter, ast.Tuple)
        for name in loop.iter.elts
        if isinstance(name, ast.Constant)
    }
    listed = {*borrowed.METHODS, *borrowed.ATTRIBUTES, *borrowed.REQUEST_ATTRIBUTES}
    relied_on = {"run_asgi"}  # what it does once the application has returned
    assert used - made_here - {"__dict__"} | dropped | relied_on == listed


def test_everything_that_is_used_of_websockets_is_on_the_list_and_nothing_else(
    code: ast.Module,
) -> None:
    used = {*attributes_of(code, "self.conn"), *attributes_of(code, "Protocol")}
    assert used == set(borrowed.CONNECTION)
    assert set(attributes_of(code, "self.conn.reader")) == {"buffer"}
    imported = {
        node.module: {alias.name for alias in node.names}
        for node in ast.walk(code)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("websockets.")
    }
    own_fallback = {"websockets.speedups", "websockets.utils"}
    assert {module: names for module, names in imported.items() if module not in own_fallback} == {
        module: set(names) for module, names in borrowed.NAMES.items() if "server" not in module
    }


class _Plain:
    """What a class statement alone puts into a class, which grows with Python (3.13 added two)."""


def test_everything_that_the_http_side_uses_of_uvicorn_is_on_the_list_and_nothing_else() -> None:
    code = ast.parse(inspect.getsource(http))
    classes = {node.name: node for node in code.body if isinstance(node, ast.ClassDef)}
    ours = classes[HttpProtocol.__name__]
    used = {*attributes_of(ours, "self"), *attributes_of(ours, "super()"), *vars(HttpProtocol)}
    made = {
        node.attr
        for node in ast.walk(ours)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    made_here = {name for name in used if not hasattr(H11Protocol, name)} - {
        *borrowed.HTTP_ATTRIBUTES
    }
    assert made_here - {*vars(HttpProtocol)} <= made
    listed = {*borrowed.HTTP_METHODS, *borrowed.HTTP_ATTRIBUTES}
    assert used - made_here - {*dir(_Plain)} == listed
    cycle = {*attributes_of(ours, "cycle"), *attributes_of(ours, "self.cycle")}
    assert cycle == set(borrowed.CYCLE)
    flow = classes["_Flow"]
    used = {*attributes_of(flow, "self"), *attributes_of(flow, "super()")} - {"_is_held"}
    assert used == set(borrowed.FLOW)
    assert set(attributes_of(ours, "websocket.conn")) <= {*borrowed.CONNECTION}


@pytest.mark.parametrize("name", borrowed.HTTP_METHODS)
def test_our_http_methods_take_what_theirs_take(name: str) -> None:
    theirs = inspect.signature(getattr(H11Protocol, name))
    assert list(theirs.parameters) == list(
        inspect.signature(getattr(HttpProtocol, name)).parameters
    )


@pytest.mark.parametrize("name", [*borrowed.HTTP_METHODS, *borrowed.HTTP_ATTRIBUTES])
def test_a_part_of_the_http_side_that_is_gone_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in borrowed.HTTP_METHODS:
        monkeypatch.delattr(H11Protocol, name)
        assert borrowed.changes() == [f"H11Protocol.{name} is gone"]
    else:
        monkeypatch.setattr(H11Protocol, "__init__", lambda self: None)
        assert f"H11Protocol.{name} is gone" in borrowed.changes()


@pytest.mark.parametrize("name", borrowed.METHODS)
def test_our_methods_take_what_theirs_take(name: str) -> None:
    theirs = getattr(WebSocketsSansIOProtocol, name)
    ours = getattr(MeshProtocol, name)
    assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)


# What their code does -----------------------------------------------------------------------------


def test_uvicorn_leaves_the_socket_open_while_a_close_timer_is_set() -> None:
    source = inspect.getsource(WebSocketsSansIOProtocol.run_asgi)
    assert "if self.close_timer is None:\n            self.transport.close()" in source


def test_uvicorn_pauses_writing_by_its_event() -> None:
    source = inspect.getsource(WebSocketsSansIOProtocol.pause_writing)
    assert "self.writable.clear()" in source


# What the guard finds -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.52.1", "0.52.4", "0.53.0", "0.54.0", "0.54.99.post1"])
def test_versions_from_the_first_tested_to_below_the_next_are_fine(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    assert borrowed.changes() == []


@pytest.mark.parametrize("version", ["0.52.0", "0.51.9", "0.55.0", "0.55rc1", "1.0.0", "main", ""])
def test_any_other_version_is_a_change(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    assert borrowed.changes() == [f"uvicorn {version} is not >=0.52.1,<0.55"]


@pytest.mark.parametrize("name", borrowed.METHODS)
def test_a_method_that_is_gone_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WebSocketsSansIOProtocol, name)
    assert f"{borrowed.CLASS}.{name} is gone" in borrowed.changes()


@pytest.mark.parametrize("name", borrowed.METHODS)
def test_a_method_with_other_parameters_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def method(self: Any, some: Any, thing: Any, else_: Any) -> None:
        """Has other parameters than any of theirs."""

    monkeypatch.setattr(WebSocketsSansIOProtocol, name, method)
    assert f"{borrowed.CLASS}.{name} has other parameters" in borrowed.changes()


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("__init__", borrowed.ATTRIBUTES),
        ("handle_connect", borrowed.REQUEST_ATTRIBUTES),
    ],
)
def test_an_attribute_that_is_gone_is_found(
    method: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle_connect(self: Any, event: Any) -> None:
        """Makes nothing."""

    monkeypatch.setattr(WebSocketsSansIOProtocol, method, handle_connect)
    assert borrowed.changes() == [f"{borrowed.CLASS}.{name} is gone" for name in names]


def test_a_class_or_a_module_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.delattr(websockets_sansio_impl, borrowed.CLASS)
        assert borrowed.changes() == [f"{borrowed.CLASS} is gone"]
    monkeypatch.setitem(sys.modules, borrowed.MODULE, None)
    (change,) = borrowed.changes()
    assert change.startswith("ModuleNotFoundError: ")


def test_what_is_gone_from_websockets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Protocol, "fail")
    assert borrowed.changes() == ["ServerProtocol.fail is gone"]
