"""The peers of benchmarks/losses.py: each says numbers, and notes what it hears."""

import json
import shutil
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Protocol, Self

import anyio
import attrs
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from actors.client.peer import Peer
from protocol.member.errors import Gap, RelayError

ROOT: Final = Path(__file__).parents[2]


@attrs.define
class Notes:
    """What a peer has noted. `heard`: numbers, and "gap" where some may be missing."""

    heard: list[Any] = attrs.Factory(list)
    in_doubt: list[int] = attrs.Factory(list)
    failed: list[Any] = attrs.Factory(list)
    said: int = 0
    resumed: int = 0


class Talker(Protocol):
    """A peer that says numbers."""

    async def notes(self) -> Notes: ...


class PythonPeer:
    """The one in Python, in this process."""

    def __init__(self, peer: Peer, count: int, every_s: float) -> None:
        self._peer = peer
        self._count = count
        self._every_s = every_s
        self._notes = Notes()

    async def notes(self) -> Notes:
        self._notes.resumed = self._peer.resumed
        return self._notes

    async def listen(self) -> None:
        """Note what the page says."""
        while True:
            try:
                async for message in self._peer:
                    if message.type == "broadcast" and message.origin == "page":
                        self._notes.heard.append(message.data)
            except Gap as gap:
                self._notes.heard.append("gap")
                self._notes.in_doubt += [message.data for message in gap.in_doubt]

    async def talk(self) -> None:
        """Say the numbers, once the page is there."""
        while "page" not in self._peer.roster:
            await anyio.sleep(0.02)
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for number in range(1, self._count + 1):
                await anyio.sleep(max(0.0, began + number * self._every_s - time.monotonic()))
                tasks.start_soon(self._say, number)
                self._notes.said = number

    async def _say(self, number: int) -> None:
        try:
            await self._peer.broadcast(number)
        except RelayError:
            self._notes.failed.append(number)


class NodePage:
    """The page's module in Node, in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdout is not None
        self._answers = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def begin(cls, options: dict[str, Any], stack: AsyncExitStack) -> Self:
        here, module = (
            ROOT / name for name in ("tests/worlds/numbered.js", "browser/relay-client.js")
        )
        script = f'import {{ main }} from "{here.as_uri()}"; await main("{module.as_uri()}");'
        command = ["node", "--experimental-websocket", "--no-warnings", "--input-type=module"]
        process = await anyio.open_process([*command, "--eval", script], stderr=None)
        await stack.enter_async_context(process)
        stack.callback(process.kill)
        page = cls(process)
        await page._write(options)
        return page

    async def _write(self, line: Any) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps(line).encode() + b"\n")

    async def notes(self) -> Notes:
        await self._write("notes")
        answer = json.loads(await self._answers.receive_until(b"\n", 2**24))
        return Notes(
            answer["heard"], answer["inDoubt"], answer["failed"], answer["said"], answer["resumed"]
        )

    def stop(self) -> None:
        """It sleeps."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It wakes up."""
        self._process.send_signal(signal.SIGCONT)


class ChromiumPage:
    """The page in Chromium."""

    def __init__(self, page: Any) -> None:
        self._page = page

    @classmethod
    async def begin(cls, options: dict[str, Any], stack: AsyncExitStack, port: int) -> Self:
        from playwright.async_api import async_playwright  # noqa: PLC0415

        playwright = await stack.enter_async_context(async_playwright())
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(f"http://localhost:{port}/browser/")
        code = (ROOT / "tests/worlds/numbered.js").read_text()
        await page.evaluate(
            """async ([code, options]) => {
                const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
                const client = await import("/browser/relay-client.js");
                window.page = (await import(url)).begin(client, options);
            }""",
            [code, options],
        )
        return cls(page)

    async def notes(self) -> Notes:
        answer = await self._page.evaluate("page.notes()")
        return Notes(
            answer["heard"], answer["inDoubt"], answer["failed"], answer["said"], answer["resumed"]
        )
