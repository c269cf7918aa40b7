"""The pages of docs/page.md and docs/join.md, as they stand there, in Chromium."""

import functools
import http.server
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.actors.cli.program import command, environment
from tests.browser.test_pages import SOON_MS
from tests.worlds.live import PATIENCE_S, LiveRelay

pytest.importorskip("playwright.sync_api", reason="needs playwright")


@contextmanager
def served(document: str, relay: LiveRelay, folder: Path) -> Iterator[str]:
    """The address of the HTML of this document, served as it says, for this relay."""
    text = (ROOT / "docs" / document).read_text()
    (html,) = re.findall(r"^```html\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    html = html.replace("http://localhost:8080", relay.http)
    (folder / "page.html").write_text(html.replace("ws://localhost:8080/ws", relay.url))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/page.html"
        finally:
            server.shutdown()
            thread.join()


def test_the_first_page_lists_the_other_tab_and_asks_its_agent(
    live: LiveRelay, tmp_path: Path, chromium: Any
) -> None:
    context = chromium.new_context()
    context.set_default_timeout(SOON_MS)
    one, other = context.new_page(), context.new_page()
    with served("page.md", live, tmp_path) as address:
        for tab in (one, other):
            tab.goto(address)
        for tab in (one, other):
            tab.wait_for_selector("#here li", state="attached")
        one.click("#ask")
        one.wait_for_function("document.getElementById('answer').textContent !== ''")
        asker = other.inner_text("#here li")
        assert one.inner_text("#answer") == f"good morning, {asker}"
        context.close()


def test_the_shortest_page_is_an_agent_for_a_terminal(
    live: LiveRelay, tmp_path: Path, chromium: Any
) -> None:
    context = chromium.new_context()
    with served("join.md", live, tmp_path) as address:
        context.new_page().goto(address)
        place = ("--url", live.url, "--id", "ann")
        deadline = time.monotonic() + PATIENCE_S
        while True:  # until the page is here
            asked = subprocess.run(
                command("ask", "greeter", "hello", *place),
                env=environment(),
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
            if asked.returncode == 0 or time.monotonic() > deadline:
                break
        assert asked.stdout == "good morning, ann\n", asked.stderr
        context.close()
