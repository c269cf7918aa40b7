"""A FastAPI application with a login of its own and a mesh inside: who has logged in can be present
under their own name, and under no other.

    pip install 'agi-diy-relay[relay]' fastapi
    uvicorn examples.fastapi_users:app       or: hypercorn examples.fastapi_users:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

from agi_diy_relay import AsgiTransport, Grant, Runtime

SESSIONS = {"session of ann": "ann"}  # your login fills this


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The mesh lives as long as the application."""
    async with Runtime() as app.state.runtime:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """A connection to the mesh, for whoever has logged in."""
    user = SESSIONS.get(websocket.cookies.get("session", ""))
    if user is None:
        await websocket.close(code=4401)
        return
    await websocket.accept()
    grant = Grant(peer=user, meshes=("team",))
    await app.state.runtime.serve(AsgiTransport(websocket), "team", grant=grant)
