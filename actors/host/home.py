"""Pages for people who open the relay's address in a browser: `/`, and the documents."""

from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from protocol.about import __version__

_ROOT: Final = Path(__file__).parents[2]

BROWSER: Final = _ROOT / "browser"
"""The browser module and the demo page."""

CONSOLE: Final = "console"
"""The folder of the console in `BROWSER`."""

CONSOLE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""It loads nothing from elsewhere. Only its WebSocket may go elsewhere: to a mesh on AgentCore."""

READABLE: Final = {"access-control-allow-origin": "*", "cache-control": "no-store"}
"""Any page may read an answer that has these headers. Browsers hide from a page why its WebSocket
did not open; what the relay answers to a look at the same path tells it. (That a relay is here is
no secret: any page may import the module from it.)"""

SITE: Final = _ROOT / "build" / "docs"
"""The documents as `make docs` builds them. Only in a source tree, like the next one."""

DOCUMENTS: Final = _ROOT / "docs"
"""The documents as they are written."""


class Link(NamedTuple):
    """A line of the page at `/`."""

    address: str
    name: str
    what: str


def routes() -> list[BaseRoute]:
    """What is served to people, as far as this relay has it."""
    found: list[BaseRoute] = [Route("/", home)]
    if BROWSER.is_dir():
        # A page that another local server serves may import the module, too.
        files = CORSMiddleware(Files(directory=BROWSER, html=True), allow_origins=["*"])
        found.append(Mount("/browser", files))
    if (BROWSER / CONSOLE).is_dir():
        found += [Route(path, to_console) for path in ("/console", "/console/")]
    if _has_site():
        found.append(Mount("/docs", Files(directory=SITE, html=True)))
    elif DOCUMENTS.is_dir():
        found.append(Mount("/docs", Files(directory=DOCUMENTS)))
    return found


def links() -> list[Link]:
    """The lines of the page at `/`. Every address on it works."""
    found = []
    if BROWSER.is_dir():
        found.append(Link("browser/", "Demo", "join the mesh from this browser"))
    if (BROWSER / CONSOLE).is_dir():
        found.append(Link("console/", "Console", "see who is here, and what they do"))
    if _has_site():
        found.append(Link("docs/", "Documentation", "how to use all this"))
    else:
        found += [link for link in _WRITTEN if (DOCUMENTS / Path(link.address).name).exists()]
    if (BROWSER / "README.md").exists():
        found.append(Link("browser/README.md", "Documentation", "use it from JavaScript"))
    found.append(Link("ping", "Status", "<code>HealthyBusy</code> while anyone is connected"))
    return found


_WRITTEN: Final = (
    Link("docs/index.md", "Documentation", "where to begin"),
    Link("docs/python.md", "Documentation", "use it from Python"),
    Link("docs/protocol.md", "Protocol", "every message, error and close code"),
)


def _has_site() -> bool:
    return (SITE / "index.html").exists()


_PAGE: Final = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width" />
    <title>agi-diy-relay</title>
    <style>
      :root {{ color-scheme: light dark; }}
      body {{
        font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem;
      }}
      code {{ overflow-wrap: anywhere; }}
    </style>
  </head>
  <body>
    <h1>agi-diy-relay</h1>
    <p>This is a relay for agent meshes, version {version}. Programs and pages that connect here
      find one another, and their agents talk.</p>
    <p>Connect to <code>{url}</code>. Everyone at this address is in one mesh. Add
      <code>?mesh=NAME</code> to join another mesh.</p>
    <ul>{links}
    </ul>
  </body>
</html>
"""

_LINK: Final = """
      <li><a href="{address}">{name}</a>: {what}</li>"""


async def home(request: Request) -> HTMLResponse:
    """The page at `/`. It loads nothing."""
    page = _PAGE.format(
        version=escape(__version__),
        url=escape(websocket_url(request.url)),
        links="".join(_LINK.format(**link._asdict()) for link in links()),
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(page, headers={"content-security-policy": policy})


def no_page(request: Request) -> PlainTextResponse:
    """The answer to who opens the address of the WebSocket as a page."""
    text = f"Connect to {websocket_url(request.url)} with a WebSocket client.\n"
    return PlainTextResponse(text, 426, {"upgrade": "websocket", **READABLE})


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to who asks for a path that is none, or opens a WebSocket there."""
    response = PlainTextResponse("Nothing is here. The path of the relay is /ws.\n", 404, READABLE)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


async def to_console(request: Request) -> Response:
    """`/console/` is short for where its page and its modules are."""
    up = "../" if request.url.path.endswith("/") else ""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{up}browser/{CONSOLE}/{query}")


def websocket_url(url: URL) -> str:
    """Where the WebSocket of a relay is that was asked by this address."""
    return str(url.replace(scheme="wss" if url.is_secure else "ws", path="/ws", query=""))


class Files(StaticFiles):
    """Static files of ours. Browsers show Markdown as text instead of saving it.

    `npm ci` puts packages of others into browser/node_modules. They are not served.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. A WebSocket is none of the files."""
        serve = super().__call__ if scope["type"] == "http" else nothing_here
        await serve(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file. Raises HTTPException (404)."""
        if "node_modules" in Path(path).parts:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        if Path(path).parts[:1] == (CONSOLE,):
            response.headers["content-security-policy"] = CONSOLE_POLICY
            response.headers["cache-control"] = "no-cache"  # a new relay has a new console
        if path.endswith(".md"):
            response.headers["content-type"] = "text/plain; charset=utf-8"
        return response
