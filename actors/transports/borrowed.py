"""The list of what the relay borrows from uvicorn and websockets, and a check of it.

actors/transports/uvicorn.py and actors/host/http.py extend classes of uvicorn that are not part of
its public interface. Everything they use of these classes stands in the tables below, once:
`changes` compares them with what is installed when the relay starts, and
tests/actors/transports/test_borrowed.py compares them with the code. Where something has changed,
the relay serves through `AsgiTransport` and uvicorn's own HTTP protocol instead.
"""

import dis
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
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
    "send_keepalive_ping": (),
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

HTTP_MODULE: Final = "uvicorn.protocols.http.h11_impl"
HTTP_CLASS: Final = "H11Protocol"

HTTP_METHODS: Final = {
    "_unset_keepalive_if_required": (),
    "connection_lost": ("exc",),
    "connection_made": ("transport",),
    "data_received": ("data",),
    "handle_events": (),
    "handle_websocket_upgrade": ("event",),
    "on_response_complete": (),
    "pause_writing": (),
    "resume_writing": (),
    "send_400_response": ("msg",),
    "shutdown": (),
    "timeout_keep_alive_handler": (),
}
"""The same of the class that actors/host/http.py extends."""

HTTP_ATTRIBUTES: Final = (
    "app_state",
    "config",
    "conn",
    "connections",
    "cycle",
    "flow",
    "loop",
    "server_state",
    "timeout_keep_alive",
    "timeout_keep_alive_task",
    "transport",
    "ws_protocol_class",
)

FLOW: Final = {"pause_reading": (), "resume_reading": ()}
"""What is used of uvicorn's `FlowControl`."""

CYCLE: Final = (
    "disconnected",
    "keep_alive",
    "message_event",
    "response_complete",
    "response_started",
)
"""What is used of a request under way, uvicorn's `RequestResponseCycle`."""

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
    made = {"__init__": ATTRIBUTES, "handle_connect": REQUEST_ATTRIBUTES}
    yield from _class(MODULE, CLASS, METHODS, made)
    yield from _class(HTTP_MODULE, HTTP_CLASS, HTTP_METHODS, {"__init__": HTTP_ATTRIBUTES})
    yield from _class("uvicorn.protocols.http.flow_control", "FlowControl", FLOW, {})
    yield from _class(HTTP_MODULE, "RequestResponseCycle", {}, {"__init__": CYCLE})


def _class(
    module: str,
    name: str,
    methods: Mapping[str, tuple[str, ...]],
    attributes: Mapping[str, tuple[str, ...]],
) -> Iterable[str]:
    """What has changed of one class: of its methods, and of the attributes that some of them
    make."""
    theirs = getattr(_module(module), name, None)
    if theirs is None:
        yield f"{name} is gone"
        return
    for method_name, parameters in methods.items():
        method = vars(theirs).get(method_name)  # its own: asyncio's base class has some, too
        if method is None:
            yield f"{name}.{method_name} is gone"
        elif tuple(inspect.signature(method).parameters) != ("self", *parameters):
            yield f"{name}.{method_name} has other parameters"
    for maker, names in attributes.items():
        made = _attributes_set_by(getattr(theirs, maker)) if hasattr(theirs, maker) else ()
        yield from (f"{name}.{attribute} is gone" for attribute in names if attribute not in made)


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
