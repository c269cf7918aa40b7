"""Existing pages, as far as echoes go: what they do with what they receive.

A browser has one id for all its tabs. The tabs hear one another over a channel of their own. What a
tab receives from the relay as `ring-update`, `invoke` or `broadcast` it tells the others, and sends
it to the relay again: under the id of its browser, with the `data` unchanged.
"""

import json
from typing import Any

from tests.worlds.mesh import Message, World, presence

SENT_AGAIN = ("ring-update", "invoke", "broadcast")


class Tab:
    """One page. `runs`: how often its agent ran, because somebody invoked it."""

    def __init__(self, browser: "Browser", world: World) -> None:
        self.browser = browser
        self.world = world
        self.connection = world.open()
        self.runs = 0
        self.out: list[bytes] = []
        self.announce()

    def announce(self) -> None:
        """As it does every 10 s."""
        data = {"status": "online", "hostname": "agi.diy", "pageId": self.browser.page}
        self.world.say(self.connection, presence(self.browser.id, **data))

    def add_to_ring(self, agent: str, words: str) -> None:
        """An agent has said something, and its page tells everyone."""
        entry = {"agentId": agent, "pageId": self.browser.page, "text": words, "timestamp": 5}
        self.broadcast("ring-update", entry)

    def invoke(self, target: str, prompt: str) -> None:
        """Ask the agents of all pages, or of those of one kind."""
        request = {"requestId": f"r{self.connection}", "targetPageId": target, "prompt": prompt}
        self.broadcast("invoke", request)

    def broadcast(self, type: str, data: Any) -> None:
        """Tell the other tabs of the browser, and the relay."""
        for tab in self.browser.tabs:
            if tab is not self:
                tab.over_the_channel(type, data)
        message = {"type": type, "from": self.browser.id, "data": data}
        self.out.append(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode())

    def over_the_channel(self, type: str, data: Any) -> None:
        """Another tab of the browser says this."""
        if type == "invoke" and data["targetPageId"] in ("all", self.browser.page):
            self.runs += 1
            answer = {"requestId": data["requestId"], "success": True, "result": "done"}
            self.broadcast("invoke-response", answer)

    def receive(self, message: Message) -> None:
        """The relay says this."""
        if message["from"] != self.browser.id and message["type"] in SENT_AGAIN:
            self.broadcast(message["type"], message["data"])


class Browser:
    """Some tabs with one id."""

    def __init__(self, world: World, id: str, tabs: int = 1, page: str = "unified") -> None:
        self.id, self.page = id, page
        self.tabs: list[Tab] = []
        for _ in range(tabs):
            self.tabs.append(Tab(self, world))


def live(world: World, *browsers: Browser, seconds: float, in_arrays: bool = False) -> None:
    """Let the pages do what they do: a hundred times a second each reads, and answers.

    `in_arrays`: what a page says at once it says in one frame.
    """
    tabs = [tab for browser in browsers for tab in browser.tabs]
    for _ in range(round(seconds * 100)):
        for tab in tabs:
            for message in world.got(tab.connection):
                tab.receive(message)
        for tab in tabs:
            said, tab.out = tab.out, []
            if said and in_arrays:
                said = [b"[" + b",".join(said) + b"]"]
            world.say(tab.connection, *said)
        world.wait(0.01)
