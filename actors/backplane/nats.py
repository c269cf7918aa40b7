"""A log as a stream of NATS JetStream. Nothing else here knows NATS.

What is appended is published without waiting for an answer: that it has arrived is known when it
comes back. Entries are pulled, some at a time, so no more come than are taken. The stream keeps
what was appended lately, in memory. It is made by the first node, unless it is there.

A connection of nats-py would come back by itself, and the gap would not be seen here. So it does
not: whatever fails is `LogUnreachable`, and the next `open` connects anew.
"""

import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import attrs

from actors.backplane.log import LogUnreachable, Opened
from actors.signal import Signal
from protocol.about import missing_extra
from protocol.mesh.federation.records import Entry

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

CONNECT_WITHIN_S: Final = 2
ANSWER_WITHIN_S: Final = 2.0
PULL: Final = 64
"""So many entries are asked for at a time. With the bound of a record that bounds the bytes."""
PULL_S: Final = 3.0
"""A pull that has brought nothing ends after so long, so that a lost consumer is noticed."""
SILENT_S: Final = 5.0
"""If neither an entry nor the end of a pull has come for so long, the log is unreachable."""
KEEP_S: Final = 120
KEEP_BYTES: Final = 2**28
"""What the stream keeps. A node that is further behind asks another one what it has missed."""
SCHEMES: Final = ("nats", "tls")


@attrs.frozen(kw_only=True)
class NatsSettings:
    """Where the servers are, and how to log in there. Secrets are in no representation.

    `urls`: of the servers, with a user and a password if they want some. `name`: of the federation:
    its stream and its subject. `replicas`: how many servers keep the stream. `credentials`,
    `nkey`: files for a login by JWT, or by an nkey seed. `ca`: a file of certificates to trust.
    """

    urls: tuple[str, ...] = attrs.field(repr=False)
    name: str = "agi-diy-relay"
    replicas: int = 1
    credentials: str | None = None
    nkey: str | None = None
    ca: str | None = None

    def __attrs_post_init__(self) -> None:
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in SCHEMES or not parts.hostname:
                raise ValueError("backplane must be addresses like nats://localhost:4222")
        if not self.urls:
            raise ValueError("backplane is empty")
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise ValueError("backplane_name has letters, digits, - and _ only")
        if not 1 <= self.replicas <= 5:
            raise ValueError(f"backplane_replicas must be from 1 to 5, got {self.replicas}")


class NatsLog:
    """One node's connection to the stream."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        try:
            import nats  # noqa: F401, PLC0415
        except ModuleNotFoundError as error:
            raise missing_extra(error, "backplane", "the backplane") from None

    @property
    def _subject(self) -> str:
        return f"{self._settings.name}.log"

    async def open(self) -> Opened:
        """Connect anew, and find the stream or make it."""
        await self.close()
        try:
            return await self._stream(await self._connect())
        except Exception as error:
            await self.close()
            raise self._unreachable(error) from None

    async def append(self, records: Sequence[bytes]) -> None:
        """Publish these."""
        client = self._client
        if client is None or not client.is_connected:
            raise LogUnreachable("not connected")
        try:
            for data in records:
                await client.publish(self._subject, data)
        except Exception as error:
            raise self._unreachable(error) from None

    async def read(self, after: int) -> AsyncGenerator[Sequence[Entry], None]:
        """Pull what is behind this position."""
        client = self._client
        if client is None:
            raise LogUnreachable("not connected")
        pulling = _Pulling(client)
        try:
            await pulling.begin(self._settings.name, after)
            while True:
                yield await pulling.entries()
        except LogUnreachable:
            raise
        except Exception as error:
            raise self._unreachable(error) from None

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with anyio.move_on_after(1.0, shield=True):
                try:
                    await client.close()
                except Exception:  # its socket may be gone, and then nats-py fails anyhow
                    return

    # ----------------------------------------------------------------------------------------------

    async def _connect(self) -> "Client":
        from nats.aio.client import Client  # noqa: PLC0415

        its = self._settings
        options: dict[str, Any] = {}
        if its.ca is not None or any(urlsplit(url).scheme == "tls" for url in its.urls):
            options["tls"] = ssl.create_default_context(cafile=its.ca)
        if its.credentials is not None:
            options["user_credentials"] = its.credentials
        if its.nkey is not None:
            options["nkeys_seed"] = its.nkey
        client = Client()
        self._client = client  # to be closed, also if it cannot connect
        await client.connect(
            list(its.urls),
            name=f"relay of {its.name}",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]
            connect_timeout=CONNECT_WITHIN_S,
            max_outstanding_pings=2,
            ping_interval=5,
            error_cb=_quiet,
            **options,
        )
        return client

    async def _stream(self, client: "Client") -> Opened:
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig  # noqa: PLC0415
        from nats.js.errors import BadRequestError, NotFoundError  # noqa: PLC0415

        its, api = self._settings, client.jetstream(timeout=ANSWER_WITHIN_S)
        try:
            info = await api.stream_info(its.name)
        except NotFoundError:
            config = StreamConfig(
                name=its.name,
                subjects=[self._subject],
                storage=StorageType.MEMORY,
                num_replicas=its.replicas,
                max_age=KEEP_S,
                max_bytes=KEEP_BYTES,
                discard=DiscardPolicy.OLD,
            )
            try:
                await api.add_stream(config)
            except BadRequestError as error:
                if error.err_code != _NAME_IN_USE:
                    raise
            info = await api.stream_info(its.name)  # another node may have been faster
        return Opened(str(info.created), info.state.last_seq)

    def _unreachable(self, error: Exception) -> LogUnreachable:
        """What is wrong, in words without addresses: these may have passwords in them."""
        kind = type(error).__name__
        words = str(error)
        hidden = any(part and part in words for part in self._secrets())
        return LogUnreachable(kind if hidden or not words else f"{kind}: {words[:200]}")

    def _secrets(self) -> list[str]:
        parts = [urlsplit(url) for url in self._settings.urls]
        return [s for part in parts for s in (part.password, part.username) if s]


_NAME_IN_USE: Final = 10058


async def _quiet(_: Exception) -> None:
    """What fails is seen where it is used."""


class _Pulling:
    """A consumer of the stream, and what has come from it."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._came: deque[Entry] = deque()
        self._more = Signal()
        self._asked = 0  # entries that may still come
        self._is_heard = False  # something has come, if only the end of a pull
        self._next = ""
        self._inbox = client.new_inbox()
        self._failure: str | None = None

    async def begin(self, stream: str, after: int) -> None:
        """Make a consumer, and ask for the first entries."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy  # noqa: PLC0415

        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
            num_replicas=1,
        )
        api = self._client.jetstream(timeout=ANSWER_WITHIN_S)
        info = await api.add_consumer(stream, config)
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{info.name}"
        await self._client.subscribe(self._inbox, cb=self._take)
        await self._pull()

    async def entries(self) -> Sequence[Entry]:
        """What has come, once something has; nothing at the end of a pull. Raises
        LogUnreachable."""
        self._is_heard = bool(self._came)
        with anyio.move_on_after(SILENT_S) as waiting:
            while not self._is_heard and self._failure is None:
                await self._more.wait()
        if self._failure is not None or not self._client.is_connected:
            raise LogUnreachable(self._failure or "the connection is gone")
        if waiting.cancelled_caught:
            raise LogUnreachable("nothing comes from the stream")
        came = list(self._came)
        self._came.clear()
        if self._asked <= PULL // 2:
            await self._pull()
        return came

    async def _pull(self) -> None:
        self._asked += PULL
        asked = json.dumps({"batch": PULL, "expires": int(PULL_S * 1e9)}).encode()
        await self._client.publish(self._next, asked, reply=self._inbox)

    async def _take(self, message: "Msg") -> None:
        self._is_heard = True
        headers = message.headers
        if headers is not None and "Status" in headers:
            status = headers["Status"]
            if status == "408":  # the end of a pull: so many of it have not come
                self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", PULL)))
            elif status != "100":
                self._failure = f"status {status} {headers.get('Description', '')}".strip()
        else:
            position, at, behind = placed(message.reply)
            self._came.append(Entry(position, at, message.data, behind))
            self._asked = max(0, self._asked - 1)
        self._more.set()


def placed(reply: str) -> tuple[int, float, int]:
    """The position of a message in its stream, when it came there (seconds), and how many more the
    stream had, as its reply subject says it.

    >>> placed("$JS.ACK.stream.consumer.1.17.3.1700000000500000000.2")
    (17, 1700000000.5, 2)
    >>> placed("$JS.ACK.domain.hash.stream.consumer.1.17.3.1700000000500000000.2.random")
    (17, 1700000000.5, 2)
    """
    tokens = reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    return int(tokens[at]), int(tokens[at + 2]) / 1e9, int(tokens[at + 3])
