"""The page of docs/page.md, as it stands there, in two tabs of Chromium."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.worlds.live import LiveRelay

pytest.importorskip("playwright.sync_api", reason="needs playwright")

SOON_MS = 20_000
"""How long a page may take for something that must come."""


@pytest.fixture
def first_page(live: LiveRelay, tmp_path: Path) -> Iterator[str]:
    """The address of the HTML in the section `A first page`, served as that section says."""
    text = (ROOT / "docs" / "page.md").read_text()
    (html,) = re.findall(r"^```html\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    html = html.replace("http://localhost:8080", live.http)
    (tmp_path / "page.html").write_text(html.replace("ws://localhost:8080/ws", live.url))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/page.html"
        server.shutdown()
        thread.join()


def test_the_first_page_lists_the_other_tab_and_asks_its_agent(
    first_page: str, chromium: Any
) -> None:
    context = chromium.new_context()
    context.set_default_timeout(SOON_MS)
    one, other = context.new_page(), context.new_page()
    for tab in (one, other):
        tab.goto(first_page)
    for tab in (one, other):
        tab.wait_for_selector("#here li", state="attached")
    one.click("#ask")
    one.wait_for_function("document.getElementById('answer').textContent !== ''")
    asker = other.inner_text("#here li")
    assert one.inner_text("#answer") == f"good morning, {asker}"
    context.close()
