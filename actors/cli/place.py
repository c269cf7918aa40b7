"""Where the mesh is, and who we are there: options, the environment, or a small file.

An option comes before the environment, and that before the file. The file is TOML, by default
`config.toml` in the folder for settings (`~/.config/agi-mesh` on Linux):

    url = "wss://relay.example/ws"
    mesh = "team"
    token-file = "~/.config/agi-mesh/token"

Its names are those of the options.
"""

import json
import os
import secrets
import socket
import tomllib
from base64 import urlsafe_b64decode
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs
import click

from actors.cli.running import CannotDo, possible
from actors.client.agentcore import agentcore
from actors.client.peer import Peer, Subscribe, join
from actors.client.websocket import Connector, websocket
from protocol.about import missing_extra

URL: Final = "ws://localhost:8080/ws"
WITHIN_S: Final = 10.0
"""A person waits so long for a relay; AgentCore needs longer to start one."""
AGENTCORE_WITHIN_S: Final = 60.0


@attrs.frozen(repr=False)
class Where:
    """Where a mesh is: a relay's WebSocket, with the mesh in it, or a runtime on AgentCore.
    `token`: for the relay. Never shown."""

    url: str | None
    arn: str | None
    mesh: str
    token: str | None


@attrs.frozen
class Place:
    """A mesh, and what this program is called there. `shown`: for people; no secret is in it."""

    connector: Connector = attrs.field(repr=False)
    shown: str
    id: str
    within_s: float
    where: Where = attrs.field(repr=False)

    def join(
        self,
        *,
        id: str | None = None,
        agents: list[Any] | None = None,
        subscribe: Subscribe = None,
        history: int = 0,
        program: str,
    ) -> Peer:
        """A peer there, to be entered. `program`: what it says that it is. Raises CannotDo for what
        no peer can be."""
        with possible():
            return join(
                self.connector,
                id or self.id,
                agents=agents or [],
                metadata={"hostname": socket.gethostname(), "program": program},
                subscribe=subscribe,
                history=history,
                within_s=self.within_s,
            )


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where: the command gets a `place`."""

    @click.option("--url", help=f"The relay's WebSocket.  [default: {URL}]", envvar="AGI_MESH_URL")
    @click.option("--arn", help="An AgentCore runtime, instead.", envvar="AGI_MESH_ARN")
    @click.option("--mesh", help="The mesh there.", envvar="AGI_MESH_MESH")
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        help="A file with a token for the relay. (Or its text in AGI_MESH_TOKEN.)",
        envvar="AGI_MESH_TOKEN_FILE",
    )
    @click.option(
        "--id",
        help="The peer id.  [default: one of its own, below the token's subject]",
        envvar="AGI_MESH_ID",
    )
    @click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="A file with these options.",
        envvar="AGI_MESH_CONFIG",
    )
    @wraps(command)
    def with_place(
        *,
        url: str | None,
        arn: str | None,
        mesh: str | None,
        token_file: Path | None,
        id: str | None,
        config: Path | None,
        **rest: Any,
    ) -> Any:
        given = {"url": url, "arn": arn, "mesh": mesh, "token-file": token_file, "id": id}
        if token_file is None:
            given["token"] = os.environ.get("AGI_MESH_TOKEN") or None
        said = {name: value for name, value in given.items() if value is not None}
        if url is not None and arn is not None:
            raise click.UsageError("--url and --arn cannot both say where the mesh is")
        return command(place=_place(_merged(said, _file(config))), **rest)

    return with_place


NAMES: Final = frozenset({"url", "arn", "mesh", "token", "token-file", "id"})


def _merged(said: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """What was said comes first: who says where else the mesh is means that, and its own token."""
    for names in (("url", "arn"), ("token", "token-file")):
        if any(name in said for name in names):
            written = {name: value for name, value in written.items() if name not in names}
    return {**written, **said}


def _file(path: Path | None) -> dict[str, Any]:
    """What the file says; by default nothing, if there is none."""
    default = Path(click.get_app_dir("agi-mesh")) / "config.toml"
    where = path or default
    try:
        written = tomllib.loads(where.read_text())
    except FileNotFoundError:
        if path is None:
            return {}
        raise CannotDo(f"there is no file {where}") from None
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise CannotDo(f"{where} cannot be read: {error}") from None
    for name, value in written.items():
        if name not in NAMES:
            raise CannotDo(f"{where} says `{name}`; it may say {', '.join(sorted(NAMES))}")
        if not isinstance(value, str):
            raise CannotDo(f"`{name}` in {where} must be a text in quotes")
    if "url" in written and "arn" in written:
        raise CannotDo(f"{where} has a url and an arn: one of them says where the mesh is")
    return written


def _place(said: dict[str, Any]) -> Place:
    token = said.get("token")
    if token is None and "token-file" in said:
        path = Path(said["token-file"]).expanduser()
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise CannotDo(f"the token in {path} cannot be read: {error}") from None
    id = said.get("id") or _own_id(token)
    mesh = said.get("mesh")
    if "arn" in said:
        try:
            connector = agentcore(said["arn"], mesh=mesh or "default", token=token)
        except ModuleNotFoundError as error:
            raise missing_extra(error, "agentcore", "--arn") from None
        where = Where(None, said["arn"], mesh or "default", token)
        return Place(connector, said["arn"], id, AGENTCORE_WITHIN_S, where)
    url = said.get("url") or URL
    url = url if mesh is None else with_mesh(url, mesh)
    shown = urlunsplit(urlsplit(url)._replace(query="")) + (f" ({mesh})" if mesh else "")
    where = Where(url, None, mesh or "default", token)
    return Place(websocket(url, token=token), shown, id, WITHIN_S, where)


def subject_of(token: str | None) -> str | None:
    """Who a token says that its bearer is, if it says so.

    >>> subject_of("e30.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl")
    'ann'
    """
    try:
        coded = (token or "").split(".")[1]
        claims = json.loads(urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
        subject = claims["sub"]
    except (ValueError, LookupError, TypeError):
        return None
    return subject if isinstance(subject, str) and subject else None


def _own_id(token: str | None) -> str:
    """An id of its own. A relay grants the bearer of a token the ids that begin with its subject.

    >>> _own_id("e30.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl").partition("-")[0]
    'ann/cli'
    """
    subject, own = subject_of(token), f"cli-{secrets.token_hex(4)}"
    return own if subject is None else f"{subject}/{own}"


def with_mesh(url: str, mesh: str) -> str:
    """The URL of this mesh there.

    >>> with_mesh("ws://localhost:8080/ws?mesh=a&b=1", "my team")
    'ws://localhost:8080/ws?b=1&mesh=my+team'
    """
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "mesh"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("mesh", mesh)])))
