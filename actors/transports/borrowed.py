"""The list of what the fast transport borrows from uvicorn and websockets, and a check of it.

actors/transports/uvicorn.py extends a class of uvicorn that is not part of its public interface.
Everything it uses of that class stands in the tables below, once: `changes` compares them with what
is installed when the relay starts, and tests/actors/transports/test_uvicorn.py compares them with
the code. Where something has changed, the relay serves through `AsgiTransport` instead.
"""

import dis
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final

import uvicorn
from websockets.version import version as websockets_version

TESTED_FROM: Final = (0, 52, 1)
TESTED_BELOW: Final = (0, 55)
"""Versions of uvicorn that were tested: from the first on, below the second. pyproject.toml asks
for the same ones."""

MODULE: Final = "uvicorn.protocols.websockets.websockets_sansio_impl"
CLASS: Final = "WebSocketsSansIOProtocol"

METHODS: Final = {
    "connection_lost": ("exc",),
    "data_received": ("data",),
    "eof_received": (),
    "handle_connect": ("event",),
    "handle_parser_exception": (),
    "handle_pong": ("event",),
    "on_task_complete": ("task",),
    "pause_writing": (),
    "resume_writing": (),
    "run_asgi": (),
}
"""Methods of the class that are extended, called or counted on, and their parameters."""

ATTRIBUTES: Final = (
    "app",
    "app_state",
    "asgi_version",
    "close_sent",
    "close_timer",
    "conn",
    "disconnected",
    "handshake_complete",
    "loop",
    "pending_ping_payload",
    "queue",
    "read_paused",
    "transport",
    "writable",
)
"""Attributes that the constructor makes, and that are read, set or dropped."""

REQUEST_ATTRIBUTES: Final = ("request", "response", "scope")
"""The same, made by `handle_connect`."""

CONNECTION: Final = (
    "close_rcvd",
    "close_sent",
    "data_to_send",
    "fail",
    "parse",
    "parser",
    "reader",
    "send_close",
)
"""What is used of websockets' protocol object, uvicorn's `conn`."""

NAMES: Final = {
    "websockets.exceptions": ("InvalidState",),
    "websockets.frames": ("Frame", "Opcode"),
    "websockets.http11": ("Request",),
    "websockets.protocol": ("Protocol",),
    "websockets.server": ("ServerProtocol",),
}
"""What is imported from websockets."""


def changes() -> list[str]:
    """What is not as it was tested, in a few words each. Empty: the fast transport can be used."""
    try:
        return [*_version(), *_uvicorn(), *_websockets()]
    except Exception as error:  # whatever it is, it is not as tested
        return [f"{type(error).__name__}: {error}"]


def supported() -> str:
    """The tested versions of uvicorn, as pyproject.toml writes them.

    >>> supported()
    '>=0.52.1,<0.55'
    """
    return f">={'.'.join(map(str, TESTED_FROM))},<{'.'.join(map(str, TESTED_BELOW))}"


def installed() -> str:
    """What is installed, for people to read."""
    return f"uvicorn {uvicorn.__version__} with websockets {websockets_version}"


def _version() -> Iterable[str]:
    numbers = tuple(map(int, re.findall(r"\d+", uvicorn.__version__)[:3]))
    if not TESTED_FROM <= numbers < TESTED_BELOW:
        yield f"uvicorn {uvicorn.__version__} is not {supported()}"


def _uvicorn() -> Iterable[str]:
    theirs = getattr(_module(MODULE), CLASS, None)
    if theirs is None:
        yield f"{CLASS} is gone"
        return
    for name, parameters in METHODS.items():
        method = vars(theirs).get(name)  # its own: asyncio's base class has some of them, too
        if method is None:
            yield f"{CLASS}.{name} is gone"
        elif tuple(inspect.signature(method).parameters) != ("self", *parameters):
            yield f"{CLASS}.{name} has other parameters"
    for maker, names in (("__init__", ATTRIBUTES), ("handle_connect", REQUEST_ATTRIBUTES)):
        made = _attributes_set_by(getattr(theirs, maker)) if hasattr(theirs, maker) else ()
        yield from (f"{CLASS}.{name} is gone" for name in names if name not in made)


def _websockets() -> Iterable[str]:
    for module, names in NAMES.items():
        found = _module(module)
        yield from (f"{module}.{name} is gone" for name in names if not hasattr(found, name))
    connection = _module("websockets.server").ServerProtocol()
    for name in CONNECTION:
        if not hasattr(connection, name):
            yield f"ServerProtocol.{name} is gone"
    if not hasattr(connection.reader, "buffer"):
        yield "ServerProtocol.reader.buffer is gone"


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _attributes_set_by(method: Callable[..., Any]) -> set[str]:
    """The names that a method stores. Read from its code, so that no source is needed.

    >>> class Example:
    ...     def __init__(self):
    ...         self.one = 1
    >>> _attributes_set_by(Example.__init__)
    {'one'}
    """
    return {step.argval for step in dis.get_instructions(method) if step.opname == "STORE_ATTR"}
