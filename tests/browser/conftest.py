"""Fixtures for the browser client: Node for its core, Chromium for the whole of it."""

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import ROOT

NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

Node = Callable[..., Any]


@pytest.fixture(scope="session")
def node() -> Node:
    """Runs JavaScript with the client as `client` and the argument as `given`; what it returns is
    the result."""
    if NODE is None:
        pytest.skip("needs node")

    def run(body: str, given: object = None) -> Any:
        script = f"""
            import {{ readFileSync }} from "node:fs";
            import * as client from {json.dumps((ROOT / "browser/relay-client.js").as_uri())};
            const given = JSON.parse(readFileSync(0, "utf8"));
            const result = await (async () => {{ {body} }})();
            process.stdout.write(JSON.stringify(result ?? null));
        """
        command = [NODE, "--input-type=module", "--eval", script]
        done = subprocess.run(
            command,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """The repository's files. A page opened with `?no-worker` may not have any."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
    }

    def end_headers(self) -> None:
        if "no-worker" in self.path:
            self.send_header("Content-Security-Policy", "worker-src 'none'")
        if "no-connections" in self.path:
            self.send_header("Content-Security-Policy", "connect-src 'self'")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The repository over HTTP, at an origin that a relay lets in by default."""
    handler = functools.partial(_Quiet, directory=str(ROOT))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium (playwright's Browser). Not for longer than a module: while it is there,
    its event loop counts as running in this thread, and nobody else can run one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
