"""A server that stands in for a relay's console: its files, and a stream that a test feeds."""

import http.server
import threading
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from actors.host.home import CONSOLE_POLICY
from tests import ROOT

PATIENCE_S = 0.05
"""How often a stream looks whether it was cut."""


class StandIn:
    """`with StandIn() as relay:`. What `send` is given goes to everyone who reads, also to those
    who come later. `token`: only who has it may read."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.meshes: list[str] = []
        """For which readers have come."""
        self.refusal: tuple[int, str] | None = None
        """What is answered instead of the stream: a status, and a sentence."""
        self._events: list[str] = []
        self._life = 0
        self._news = threading.Condition()
        handler = type("_Handler", (_Handler,), {"relay": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/browser/console/"

    def send(self, text: str) -> None:
        """To all streams."""
        with self._news:
            self._events.append(text)
            self._news.notify_all()

    def cut(self) -> None:
        """End all streams; later readers begin with what is sent from now on."""
        with self._news:
            self._life += 1
            self._events = []
            self._news.notify_all()

    def feed(self, write: Any) -> None:
        """Write all events to one reader, until the streams are cut."""
        with self._news:
            life, sent = self._life, 0
        while True:
            with self._news:
                if self._life != life:
                    return
                texts = self._events[sent:]
                if not texts:
                    self._news.wait(PATIENCE_S)
                    continue
                sent += len(texts)
            for text in texts:
                write(text.encode())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    relay: StandIn
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(ROOT))

    def end_headers(self) -> None:
        self.send_header("content-security-policy", CONSOLE_POLICY)
        self.send_header("cache-control", "no-store")
        super().end_headers()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != "/console/stream":
            super().do_GET()
            return
        self.relay.meshes.append(parse_qs(parts.query).get("mesh", [""])[0])
        token = self.relay.token
        if token is not None and self.headers["authorization"] != f"Bearer {token}":
            self._answer(401, "a token is needed")
        elif self.relay.refusal is not None:
            self._answer(*self.relay.refusal)
        else:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.end_headers()
            try:
                self.relay.feed(self.wfile.write)
            except OSError:
                return  # The reader has gone.

    def _answer(self, status: int, sentence: str) -> None:
        body = f"{sentence}\n".encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
