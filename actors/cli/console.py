"""`agi-mesh console`: the console of a mesh, served on this machine.

It is the console of the relay (docs/console.md), with the same page. What the page asks for comes
from the relay: the stream from `/console/stream`, or, behind AgentCore's edge, from `/invocations`,
with the credentials that are here.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import attrs
import click

from actors.cli import shown
from actors.cli.place import Place, Where, options, subject_of, with_mesh
from actors.cli.running import CannotDo, run
from actors.client.agentcore import Invocation, presigned, signed_invocation
from protocol.about import missing_extra
from protocol.member.errors import RelayError

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

ADDRESSES: Final = ("127.0.0.1", "::1")
SILENT_S: Final = 60.0
"""A relay says something at least every 15 seconds."""
REFUSAL_BYTES_MAX: Final = 4096


@click.command()
@options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Where the page is, on this machine. 0: any that is free.",
)
def console(*, place: Place, port: int) -> None:
    """See who is in a mesh, and what they do, in a browser.

    The page is on this machine, and the mesh may be anywhere. Where the relay asks for tokens, this
    needs one that is good for all meshes and may watch.
    """
    run(partial(_serve, place, port))


async def _serve(place: Place, port: int) -> None:
    try:
        import httpx  # noqa: PLC0415 (the extra `console`)
        import uvicorn  # noqa: PLC0415

        from actors.host.server import CannotListen, bind  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing_extra(error, "console", "agi-mesh console") from None
    try:
        listeners = bind(ADDRESSES, port)
    except CannotListen as error:
        raise CannotDo(f"cannot listen on {error}") from None
    at = listeners[0].getsockname()[1]
    async with httpx.AsyncClient(timeout=SILENT_S) as http:
        config = uvicorn.Config(
            app_for(place.where, http), ws="none", log_config=None, timeout_graceful_shutdown=1
        )
        shown.note(f"The console is at http://localhost:{at}/console/ (Ctrl-C ends it)")
        await uvicorn.Server(config).serve(sockets=listeners)


def app_for(where: Where, http: "httpx.AsyncClient") -> "ASGIApp":
    """What is served here: the page, where to join, and the stream."""
    import httpx  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.datastructures import Headers  # noqa: PLC0415
    from starlette.responses import (  # noqa: PLC0415
        JSONResponse,
        PlainTextResponse,
        StreamingResponse,
    )
    from starlette.routing import Mount, Route  # noqa: PLC0415

    from actors.host.home import BROWSER, Files, to_console  # noqa: PLC0415
    from actors.host.openings import is_foreign  # noqa: PLC0415
    from actors.host.requests import is_own  # noqa: PLC0415

    def wanted(request: "Request") -> Where:
        """Another mesh of the same relay, if the page asks for one. AgentCore has only this."""
        mesh = request.query_params.get("mesh")
        if where.url is None or not mesh:
            return where
        return attrs.evolve(where, url=with_mesh(where.url, mesh), mesh=mesh)

    async def stream(request: "Request") -> "Response":
        try:
            asked = await _invocation(wanted(request))
            sent = http.build_request(
                asked.method, asked.url, headers=asked.headers, content=asked.body
            )
            answer = await http.send(sent, stream=True)
        except (RelayError, httpx.HTTPError) as error:
            return PlainTextResponse(f"{error or type(error).__name__}\n", 502)
        if answer.status_code != 200:
            text = b""
            async for part in _passed(answer):
                text = (text + part)[:REFUSAL_BYTES_MAX]
                if len(text) == REFUSAL_BYTES_MAX:
                    break
            await answer.aclose()
            return PlainTextResponse(text, 502)
        headers = {"cache-control": "no-store"}
        return StreamingResponse(_passed(answer), 200, headers, "text/event-stream")

    async def _passed(answer: "httpx.Response") -> AsyncIterator[bytes]:
        try:
            async for part in answer.aiter_bytes():
                yield part
        except httpx.HTTPError:
            return  # the page tries again
        finally:
            with anyio.CancelScope(shield=True):
                await answer.aclose()

    async def place(request: "Request") -> "Response":
        peer = subject_of(where.token)
        if where.arn is not None:
            try:
                address = await presigned(where.arn, mesh=where.mesh, token=where.token)()
            except RelayError as error:
                return PlainTextResponse(f"{error}\n", 502)
            return JSONResponse({"url": address.url, "peer": peer})
        url = wanted(request).url
        return JSONResponse({"url": url, "peer": peer, "token": where.token})

    app = Starlette(
        routes=[
            Mount("/browser", Files(directory=BROWSER, html=True)),
            Route("/console/stream", stream),
            Route("/console/where", place),
            *(Route(path, to_console) for path in ("/", "/console", "/console/")),
        ]
    )

    async def guarded(scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Whoever asks is a page of ours: the answers hold credentials."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not is_own(headers.get("host", ""), frozenset()) or is_foreign(headers, ()):
                await PlainTextResponse("only for pages of this console\n", 403)(
                    scope, receive, send
                )
                return
        await app(scope, receive, send)

    return guarded


async def _invocation(where: Where) -> Invocation:
    """The request whose answer is the stream. Raises RelayError."""
    if where.arn is not None:
        body = {"observe": True, "mesh": where.mesh}
        return await signed_invocation(where.arn, body, mesh=where.mesh, token=where.token)
    assert where.url is not None
    headers = {} if where.token is None else {"authorization": f"Bearer {where.token}"}
    return Invocation("GET", stream_url(where.url), headers, b"")


def stream_url(url: str) -> str:
    """Where the stream of a mesh is whose WebSocket is there.

    >>> stream_url("wss://example.org/relay/ws?mesh=team")
    'https://example.org/relay/console/stream?mesh=team'
    """
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/").removesuffix("/ws") + "/console/stream"
    return urlunsplit(parts._replace(scheme=scheme, path=path))
